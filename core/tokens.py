"""Tokens: signed JWTs that carry an identity, and opaque one-time tokens that are stored only as a hash."""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID, uuid4

import jwt

from core.keys import SigningKey

TokenType = Literal["access", "refresh", "challenge"]
# Of how many genuine tokens the claims are remembered.
_REMEMBERED = 4096


class InvalidToken(Exception):
    """The token is malformed, forged, of another type or lacks a claim."""


class ExpiredToken(InvalidToken):
    """The token was good once."""


class TokenSigner:
    """Issues JWTs (claims of contract.md 2.1) with one key, and verifies those of it and of the keys before it."""

    def __init__(self, key: SigningKey, *, previous: Sequence[SigningKey] = ()) -> None:
        self._key = key
        self._keys = (key, *previous)
        # One token is shown again and again: with every request, and in every namespace at every reconnect.
        self._claims_of = lru_cache(maxsize=_REMEMBERED)(self._verify)

    def issue(
        self, kind: TokenType, subject: UUID, *, now: datetime, lifetime: timedelta, claims: Mapping[str, str | None]
    ) -> str:
        """Sign a token for `subject`; a random `jti` is added unless `claims` brings one."""
        payload: dict[str, Any] = {
            "sub": str(subject),
            "type": kind,
            "iat": int(now.timestamp()),
            "exp": int((now + lifetime).timestamp()),
            "jti": uuid4().hex,
            **claims,
        }
        return jwt.encode(payload, self._key.signing, algorithm=self._key.algorithm, headers={"kid": self._key.kid})

    @property
    def public_keys(self) -> list[dict[str, str]]:
        """The public halves of the keys, as JWKs; shared secrets have none."""
        return [key.public for key in self._keys if key.public is not None]

    def read(self, token: str, kind: TokenType, *, now: datetime) -> dict[str, Any]:
        """Return the claims of a valid token; raises ExpiredToken or InvalidToken."""
        claims = dict(self._claims_of(token))
        if claims["type"] != kind:
            raise InvalidToken("wrong token type")
        if not isinstance(claims["exp"], int):
            raise InvalidToken("malformed exp")
        if claims["exp"] <= now.timestamp():
            raise ExpiredToken("expired")
        return claims

    def _verify(self, token: str) -> Mapping[str, Any]:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, UnicodeError) as error:
            raise InvalidToken(str(error)) from error
        # Tokens of earlier releases name no key.
        candidates = [key for key in self._keys if kid in (None, key.kid)]
        failure = InvalidToken("signed with an unknown key")
        for key in candidates:
            try:
                return _decode(token, key)
            except InvalidToken as error:
                failure = error
        raise failure


def _decode(token: str, key: SigningKey) -> Mapping[str, Any]:
    try:
        # Each key verifies its own algorithm only: a public key must never be taken for a shared secret. Expiry is
        # compared with the clock that was handed in, not with the machine's.
        claims: dict[str, Any] = jwt.decode(
            token,
            key.verifying,
            algorithms=[key.algorithm],
            options={"require": ["sub", "exp", "type"], "verify_exp": False, "verify_iat": False},
        )
    except (jwt.PyJWTError, UnicodeError) as error:
        raise InvalidToken(str(error)) from error
    return claims


def new_opaque_token() -> str:
    """Return 32 random bytes, URL-safe (43 characters)."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """Return the hex SHA-256 under which an opaque token is stored; the token itself never is."""
    return hashlib.sha256(token.encode()).hexdigest()
