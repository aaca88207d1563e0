"""Accounts of others: what a merchant must tell of its account at a provider before we can work with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from core.errors import InvalidInput
from providers.payments.contract import PaymentProvider

Keys = Mapping[str, str]
"""What opens an account, by the names of `AccountKind.needed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKind:
    """A provider at which merchants may have accounts.

    `needed` are the names of what must be told, `shown` those of them that are no secrets, and `named_by` the one whose
    last characters tell a merchant which key it was. `signature_header` is the header that its webhooks are known by.
    """

    needed: tuple[str, ...]
    shown: tuple[str, ...]
    named_by: str
    signature_header: str


class AccountRefused(InvalidInput):
    """What was told of an account cannot be right; `details["errors"]` names the fields."""


class Accounts(Protocol):
    """Opens merchants' accounts."""

    @property
    def kinds(self) -> Mapping[str, AccountKind]:
        """The providers by name."""

    def open(self, provider: str, keys: Keys) -> PaymentProvider:
        """Return an adapter for an account; it need not be closed. Raises AccountRefused."""

    async def check(self, provider: str, keys: Keys) -> None:
        """Look at what a stranger told of an account, before anything is kept; asks the name server, not the provider.

        Raises:
            AccountRefused: a key cannot be read, or an address is none that we would call.
        """


def refused_field(name: str, message: str) -> AccountRefused:
    """Say what is wrong with one field of the body."""
    problem = {"field": f"body -> {name}", "message": message, "type": "value_error"}
    return AccountRefused(details={"errors": [problem]})
