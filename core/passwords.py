"""Password hashes: argon2id for new ones, bcrypt of the earlier systems verified and due for an upgrade.

It takes a good tenth of a second of a core, so a server has others do it: `providers.passwords`.
"""

import secrets
from contextlib import suppress
from dataclasses import dataclass

from passlib.context import CryptContext
from passlib.hash import bcrypt

_ARGON2, _BCRYPT = "argon2", "bcrypt"
# bcrypt looks at no more than 72 bytes and today's library refuses longer input; the earlier systems cut it there.
_BCRYPT_BYTES = 72
# Longer input is a denial of service and not a password; the library refuses it above 4096.
LONGEST = 1024
# One thread for each hash. RFC 9106 computes in four, which made a login storm eight threads against the event loop.
_LANES = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a check: `upgraded_hash` is set when the stored hash should be replaced."""

    matches: bool
    upgraded_hash: str | None = None


class Hashes:
    """Makes and checks hashes. One that cost less than `memory_kib` of memory and `rounds` is due for an upgrade.

    `earlier_bcrypt_rounds` is what the bcrypt hashes of earlier systems cost (log2), where there are any: then
    whatever is refused was compared by both algorithms, so that its time does not tell whose hash is of which.
    """

    def __init__(self, *, memory_kib: int, rounds: int, earlier_bcrypt_rounds: int | None = None) -> None:
        self._context = CryptContext(
            schemes=["argon2", "bcrypt"],
            deprecated="auto",
            argon2__memory_cost=memory_kib,
            argon2__rounds=rounds,
            argon2__parallelism=_LANES,
        )
        nobodys = secrets.token_urlsafe(16)
        # Hashed once at start, so that checking an unknown account costs exactly as much too.
        self._decoys: dict[str, str] = {_ARGON2: self._context.hash(nobodys)}
        if earlier_bcrypt_rounds is not None:
            self._decoys[_BCRYPT] = bcrypt.using(rounds=earlier_bcrypt_rounds).hash(nobodys)

    def hash(self, password: str) -> str:
        """Return an argon2id hash in the modular crypt format."""
        return str(self._context.hash(_bytes(password)))

    def check(self, password: str, stored: str | None) -> Verdict:
        """Check `password` against a stored hash; for None, an unknown account, the same work is done in vain."""
        secret, compared = _bytes(password[:LONGEST]), ""
        if stored is not None and len(password) <= LONGEST:
            # What is stored may be no hash that we know. Nothing matches that, and it takes as long as for any other.
            with suppress(ValueError, TypeError):
                verdict = self._compare(secret, stored)
                if verdict.matches:
                    return verdict
                compared = _algorithm(stored)
        for algorithm, decoy in self._decoys.items():
            if algorithm != compared:
                self._verify(secret, decoy)
        return Verdict(matches=False)

    def _compare(self, secret: bytes, stored: str) -> Verdict:
        if _algorithm(stored) == _ARGON2:
            matches, upgraded = self._context.verify_and_update(secret, stored)
            return Verdict(matches=matches, upgraded_hash=upgraded)
        matches = self._verify(secret, stored)
        return Verdict(matches=matches, upgraded_hash=self._context.hash(secret) if matches else None)

    def _verify(self, secret: bytes, stored: str) -> bool:
        return bool(self._context.verify(secret[:_BCRYPT_BYTES] if _algorithm(stored) == _BCRYPT else secret, stored))


def _algorithm(stored: str) -> str:
    return _BCRYPT if stored.startswith("$2") else _ARGON2


def _bytes(password: str) -> bytes:
    # JSON can spell half a surrogate pair, which strict UTF-8 refuses; it is as good a password as any.
    return password.encode(errors="surrogatepass")
