"""Tokens that letters carry: each works once, for a while, and only its hash is kept (docs/adr/0009)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, true, update

from core.tokens import new_opaque_token, token_hash
from models.users import OneTimeToken, TokenPurpose
from services.mail import LETTER_PAUSE
from services.tenants.members import lock_user
from services.unit_of_work import UnitOfWork

Lock = Callable[[UnitOfWork, UUID], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class UsedToken:
    """What a token was good for; `email` is the address that it was sent to, if it is about addresses."""

    user_id: UUID
    purpose: TokenPurpose
    email: str | None


def issue_token(
    uow: UnitOfWork, user_id: UUID, purpose: TokenPurpose, *, lifetime: timedelta, email: str | None = None
) -> str:
    """Return a new token for a letter to a user."""
    token = new_opaque_token()
    uow.session.add(
        OneTimeToken(
            user_id=user_id,
            purpose=purpose,
            token_hash=token_hash(token),
            email=email,
            created_at=uow.now,
            expires_at=uow.now + lifetime,
        )
    )
    return token


async def use_token(uow: UnitOfWork, token: str, *purposes: TokenPurpose, lock: Lock = lock_user) -> UsedToken | None:
    """Use a token up and `lock` its user; None if it is unknown, used, too old, or for something else."""
    mine = OneTimeToken.token_hash == token_hash(token)
    user_id = await uow.session.scalar(select(OneTimeToken.user_id).where(mine))
    if user_id is None:
        return None
    # The user first and the tokens after: two letters used at once would otherwise wait for each other for ever.
    await lock(uow, user_id)
    # One conditional statement: of two that bring the same token at once, only one finds it unused.
    used = await uow.session.execute(
        update(OneTimeToken)
        .where(
            mine,
            OneTimeToken.purpose.in_(purposes),
            OneTimeToken.used_at.is_(None),
            OneTimeToken.expires_at > uow.now,
        )
        .values(used_at=uow.now)
        .returning(OneTimeToken.purpose, OneTimeToken.email)
    )
    row = used.one_or_none()
    return UsedToken(user_id, row.purpose, row.email) if row is not None else None


async def void_tokens(uow: UnitOfWork, user_id: UUID, *purposes: TokenPurpose) -> None:
    """Make a user's letters useless: an earlier one, which others may have read, must not undo what was just done."""
    await uow.session.execute(
        update(OneTimeToken)
        .where(
            OneTimeToken.user_id == user_id,
            OneTimeToken.purpose.in_(purposes),
            OneTimeToken.used_at.is_(None),
        )
        .values(used_at=uow.now)
    )


async def was_sent_just_now(uow: UnitOfWork, user_id: UUID, purpose: TokenPurpose, *, email: str | None = None) -> bool:
    """Tell whether the last letter of this kind is so young that no other is sent yet; holds the user.

    With an `email` only a letter to that address counts. So of a crowd that asks at once, each but the first finds the
    first one's letter.
    """
    await lock_user(uow, user_id)
    recent = await uow.session.scalar(
        select(OneTimeToken.id)
        .where(
            OneTimeToken.user_id == user_id,
            OneTimeToken.purpose == purpose,
            OneTimeToken.used_at.is_(None),
            OneTimeToken.created_at > uow.now - LETTER_PAUSE,
            true() if email is None else OneTimeToken.email == email,
        )
        .limit(1)
    )
    return recent is not None
