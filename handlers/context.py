"""What the REST door is given by the composition root."""

from dataclasses import dataclass
from typing import Protocol

from aiohttp import ClientSession, web

from services.identity import Principal
from services.permissions import KeyScope
from services.registry import Services
from services.unit_of_work import UnitOfWorkFactory


class Recogniser(Protocol):
    """Knows whom access tokens and API keys name."""

    async def recognise(self, token: str, *, scope: KeyScope | None = None) -> Principal:
        """Return whom a token names as things stand; raises CredentialsRefused and its kin.

        An API key is refused unless it has `scope`, and always without one.
        """

    def must_look(self, token: str, /) -> bool:
        """Tell whether the database must be asked merely to read a token."""


class RateLimiter(Protocol):
    """Counts hits of a named rule such as `10/minute` under a key."""

    async def hit(self, rule: str, *key: str) -> int | None:
        """Count one hit; returns None when it is allowed, else the seconds to wait."""

    async def wait_s(self, rule: str, *key: str) -> int | None:
        """Return the seconds that the next hit would have to wait, None when not at all; counts nothing."""

    async def clear(self, rule: str, *key: str) -> None:
        """Forget the hits that were counted under a key."""


class Readiness(Protocol):
    """Looks at everything the process needs."""

    async def check(self) -> dict[str, str]:
        """Return the state of each need by name: `ok`, `not configured` or `error: …`."""


# The rules that guard passwords, codes and the knowledge of who has an account: all instances together count these
# also while Redis is away.
GUARDING = frozenset(("auth_per_ip", "auth_per_account", "phone_codes_per_ip", "phone_checks_per_ip"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRules:
    """The rules of contract.md 9.8, each in the notation of the `limits` library; empty means unlimited."""

    auth_per_ip: str = ""
    sso_per_user: str = ""
    webhooks_per_ip: str = ""
    user_total: str = ""
    auth_per_account: str = ""
    key_total: str = ""
    key_looks_per_ip: str = ""
    documents_per_ip: str = ""
    payments_per_tenant: str = ""
    invites_per_tenant: str = ""
    phone_codes_per_ip: str = ""
    phone_checks_per_ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The door's whole world; `public_url` has no trailing slash, `http` is for calls to our own routes.

    `origins` are those of the pages that may call us.
    """

    uow: UnitOfWorkFactory
    services: Services
    recognition: Recogniser
    limiter: RateLimiter
    rules: RateRules
    readiness: Readiness
    environment: str
    version: str
    public_url: str
    origins: frozenset[str]
    request_timeout_s: float
    http: ClientSession


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
CLIENT_IP: web.RequestKey[str] = web.RequestKey("client_ip", str)
