"""Passwords that are known from breaches, asked of a register with a range API such as Have I Been Pwned's.

The register learns the first five digits of the password's SHA-1 and answers with every hash that begins so, of which
there are hundreds (k-anonymity): neither the password nor its hash leaves us.
https://haveibeenpwned.com/API/v3#PwnedPasswords
"""

import hashlib
from typing import Protocol

import aiohttp
import structlog

_PREFIX = 5
_TIMEOUT_S = 2.0
# A real answer has some 40 kilobytes, padded twice as much.
_LARGEST_ANSWER = 1024 * 1024

logger = structlog.get_logger(__name__)


class BreachRegister(Protocol):
    """Knows passwords that attackers know too."""

    async def knows(self, password: str) -> bool:
        """Tell whether a password was found in a breach; False as well when the register cannot be asked."""


class RangeRegister:
    """A register with a range API at `base_url`.

    While it is away passwords are let through: that nobody can set one would be worse.
    """

    def __init__(self, http: aiohttp.ClientSession, *, base_url: str) -> None:
        self._http = http
        self._base_url = base_url

    async def knows(self, password: str) -> bool:
        digest = hashlib.sha1(password.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest().upper()
        prefix, rest = digest[:_PREFIX], digest[_PREFIX:]
        try:
            text = await self._range(prefix)
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            logger.warning("breached passwords not asked", error=type(error).__name__)
            return False
        return any(_counts(line, rest) for line in text.splitlines())

    async def _range(self, prefix: str) -> str:
        # Padding keeps the size of the answer from telling which range was asked for.
        async with self._http.get(
            f"{self._base_url}/range/{prefix}",
            headers={"Add-Padding": "true"},
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            raise_for_status=True,
            allow_redirects=False,
        ) as response:
            # A read returns what has arrived by then, so that one alone may see the first piece only.
            body = bytearray()
            async for piece in response.content.iter_chunked(_LARGEST_ANSWER):
                body += piece
                if len(body) > _LARGEST_ANSWER:
                    break
        return body.decode("ascii")


def _counts(line: str, rest: str) -> bool:
    suffix, _, count = line.strip().partition(":")
    # Padding lines have a count of zero.
    return suffix.upper() == rest and count.strip() not in ("", "0")
