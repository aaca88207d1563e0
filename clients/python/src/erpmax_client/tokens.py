"""Access tokens: where they come from, and how a new one is had when the old one is too old."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from erpmax_client.errors import SignInRefused, Unreachable

TokenProvider = Callable[[str | None], Awaitable[str]]
"""Returns an access token other than the given one, which the server has found too old; any will do when it is None.

Raises SignInRefused when there will be none, and Unreachable when there may be one later.
"""

SecondFactor = Callable[[], Awaitable[str]]
"""Returns a code of the user's authenticator app, or a recovery code; called for each sign-in that asks for one."""

_TIMEOUT = ClientTimeout(total=15)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What `POST /api/v1/auth/login` and `/refresh` give; a refresh token works once."""

    access: str
    refresh: str | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user signs in with; whoever has a second factor is asked for it by `second_factor`."""

    email: str
    password: str
    second_factor: SecondFactor | None = None


class RestTokens:
    """A TokenProvider that signs in and refreshes over REST, once for however many ask at the same time.

    `on_tokens` is told each new pair, for applications that keep it: of the refresh tokens only the newest works.
    """

    def __init__(
        self,
        http: ClientSession,
        url: str,
        *,
        credentials: Credentials | None = None,
        tokens: Tokens | None = None,
        on_tokens: Callable[[Tokens], None] | None = None,
    ) -> None:
        self._http = http
        self._url = url
        self._credentials = credentials
        self._tokens = tokens
        self._on_tokens = on_tokens
        self._renewal: asyncio.Task[Tokens] | None = None

    async def __call__(self, stale: str | None = None) -> str:
        if self._tokens is not None and self._tokens.access != stale:
            return self._tokens.access
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        # Shielded, because a refresh token is spent once it was sent: whoever gives up waiting must not undo that.
        return (await asyncio.shield(self._renewal)).access

    async def close(self) -> None:
        """Wait for a renewal that is under way."""
        if self._renewal is not None:
            await asyncio.wait({self._renewal})

    async def _renew(self) -> Tokens:
        tokens = await self._obtain()
        self._tokens = tokens
        if self._on_tokens is not None:
            self._on_tokens(tokens)
        return tokens

    async def _obtain(self) -> Tokens:
        refresh = self._tokens.refresh if self._tokens is not None else None
        if refresh is not None:
            try:
                return _read("refresh", await self._ask("refresh", {"refresh_token": refresh}))
            except SignInRefused:
                if self._credentials is None:
                    raise
        if self._credentials is None:
            raise SignInRefused("TOKEN_EXPIRED", "the access token is too old, and there is no refresh token")
        return await self._sign_in(self._credentials)

    async def _sign_in(self, who: Credentials) -> Tokens:
        document = await self._ask("login", {"email": who.email, "password": who.password})
        challenge = _challenge(document)
        if challenge is None:
            return _read("login", document)
        if who.second_factor is None:
            raise SignInRefused("2FA_REQUIRED", "the user has a second factor, and there is no `second_factor`")
        code = await who.second_factor()
        return _read("verify-2fa", await self._ask("verify-2fa", {"challenge_token": challenge, "code": code}))

    async def _ask(self, path: str, body: Mapping[str, str]) -> Any:
        address = f"{self._url}/api/v1/auth/{path}"
        try:
            async with self._http.post(address, json=body, timeout=_TIMEOUT) as answer:
                if answer.status >= 500 or answer.status == 429:
                    patience = _seconds(answer.headers.get("Retry-After"))
                    raise Unreachable(f"{path} answered {answer.status}", retry_after_s=patience)
                document = await answer.json()
        except (ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{path}: {str(error) or type(error).__name__}") from error
        if not answer.ok:
            raise _refusal(document)
        return document


def _challenge(document: Any) -> str | None:
    """Return the token of a challenge for the second factor; None when the answer is none."""
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict) or data.get("status") != "2fa_required":
        return None
    return str(data.get("challenge_token"))


def _read(path: str, document: Any) -> Tokens:
    try:
        data = document["data"]
        return Tokens(access=data["access_token"], refresh=data["refresh_token"])
    except (KeyError, TypeError) as error:
        # A sign-in that asks for what this package does not know ends here too.
        raise SignInRefused("UNEXPECTED_ANSWER", f"{path} gave no tokens") from error


def _refusal(document: Any) -> SignInRefused:
    fields = document if isinstance(document, dict) else {}
    error = fields.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return SignInRefused(str(code or "AUTH_ERROR"), str(fields.get("message") or "sign-in refused"))


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
