"""Tokens: signed JWTs that carry an identity, and opaque one-time tokens that are stored only as a hash."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import jwt

TokenType = Literal["access", "refresh"]
_ALGORITHM = "HS256"


class InvalidToken(Exception):
    """The token is malformed, forged, of another type or lacks a claim."""


class ExpiredToken(InvalidToken):
    """The token was good once."""


class TokenSigner:
    """Issues and verifies JWTs (claims of contract.md 2.1) with one HS256 secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

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
        return jwt.encode(payload, self._secret, algorithm=_ALGORITHM)

    def read(self, token: str, kind: TokenType, *, now: datetime) -> dict[str, Any]:
        """Return the claims of a valid token; raises ExpiredToken or InvalidToken."""
        try:
            # Expiry is compared with the clock that was handed in, not with the machine's.
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                options={"require": ["sub", "exp", "type"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, UnicodeError) as error:
            raise InvalidToken(str(error)) from error
        if claims["type"] != kind:
            raise InvalidToken("wrong token type")
        if not isinstance(claims["exp"], int):
            raise InvalidToken("malformed exp")
        if claims["exp"] <= now.timestamp():
            raise ExpiredToken("expired")
        return claims


def new_opaque_token() -> str:
    """Return 32 random bytes, URL-safe (43 characters)."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """Return the hex SHA-256 under which an opaque token is stored; the token itself never is."""
    return hashlib.sha256(token.encode()).hexdigest()
