"""Passwords that somebody chooses: refused when attackers know them, hashed otherwise."""

from core.errors import DomainError
from providers.breaches import BreachRegister
from providers.passwords.hasher import PasswordHasher


class PasswordBreached(DomainError):
    """The chosen password stands in lists that attackers try first."""

    code = "PASSWORD_BREACHED"
    message = "This password is known from a data breach. Choose another one"


class NewPasswords:
    """Takes in new passwords. It asks the outside world, so no unit of work may be open meanwhile.

    Without a register of `breaches` any password will do.
    """

    def __init__(self, *, hasher: PasswordHasher, breaches: BreachRegister | None) -> None:
        self._hasher = hasher
        self._breaches = breaches

    async def hash(self, password: str) -> str:
        """Return what a new password is stored as; raises PasswordBreached."""
        if self._breaches is not None and await self._breaches.knows(password):
            raise PasswordBreached
        return await self._hasher.hash(password)
