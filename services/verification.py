"""Verified addresses: whether an account whose address nobody has confirmed may do what costs money or concerns others.

Somebody else's address is easily typed into a form. Nothing is proven by that until a letter's token has come back.
"""

from dataclasses import dataclass

from sqlalchemy import select

from core.errors import PermissionDenied
from models.users import User
from services.identity import Principal
from services.unit_of_work import UnitOfWork


class EmailUnverified(PermissionDenied):
    """The caller has to confirm their e-mail address first, by the letter that they were sent."""

    code = "EMAIL_UNVERIFIED"
    message = "Confirm your e-mail address to do this"


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the platform insists on verified addresses; released clients know nothing of them."""

    required: bool

    async def require(self, uow: UnitOfWork, actor: Principal) -> None:
        """Raise EmailUnverified if the platform insists and nothing that reaches the caller is proven."""
        if self.required:
            await require_proven(uow, actor)

    def believes(self, user: User) -> bool:
        """Tell whether an account is taken for that of whoever reads the letters to its address."""
        return not self.required or user.email_verified_at is not None


NOT_REQUIRED = Verification(required=False)


async def require_proven(uow: UnitOfWork, actor: Principal) -> None:
    """Raise EmailUnverified if neither the caller's address nor a phone of theirs is proven.

    An API key has neither; whoever made it was asked.
    """
    if actor.person_id is None:
        return
    user = (await uow.session.scalars(select(User).where(User.id == actor.user_id))).one()
    if not user.is_proven:
        raise EmailUnverified
