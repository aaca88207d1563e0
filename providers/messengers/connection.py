"""JSON over HTTPS to one messenger: one attempt per call, bounded in time and size, and silent about its content."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp
import structlog

from core import json
from providers.messengers.contract import MessengerBusy, MessengerUnavailable

# A real answer has a few kilobytes.
_LARGEST_ANSWER: Final = 256 * 1024
_SHORTEST_WAIT_S: Final = 1
_LONGEST_WAIT_S: Final = 24 * 60 * 60

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that the service itself gave: its HTTP status and its JSON object."""

    status: int
    body: Mapping[str, object]

    @property
    def ok(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def text(self, key: str) -> str:
        """Return a text of the answer, empty if there is none."""
        value = self.body.get(key)
        return value if isinstance(value, str) else ""


class Connection:
    """One service's connections.

    Args:
        name: the sender's name, for logs.
        base_url: where the API is, with or without a trailing slash. Requests below it may carry a secret in their
            path, so no address is ever logged or shown in an error.
        headers: go with every request.
        timeout_s: bounds one call as a whole.
        ca_file: further trusted certificates (PEM), beside those of the system.
    """

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        ca_file: Path | None = None,
    ) -> None:
        self._name = name
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers or {})
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._tls = _trusting(ca_file)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, payload: Mapping[str, object], *, query: Mapping[str, str] | None = None) -> Answer:
        """POST JSON to `path`.

        Raises:
            MessengerBusy: the answer is 429.
            MessengerUnavailable: no answer, one of 5xx or 3xx, or none that is a JSON object.
        """
        try:
            async with self._opened().post(
                f"{self._base_url}/{path}",
                data=json.dumps(payload),
                params=query,
                # A redirect would carry codes and credentials to an address that nobody chose.
                allow_redirects=False,
            ) as response:
                status, retry_after = response.status, response.headers.get("Retry-After", "")
                body = await _read(response)
        # ValueError stands for an address that is none.
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            logger.warning("messenger away", sender=self._name, error=type(error).__name__)
            # Not chained: aiohttp's errors may show the whole address, and with it a bot's token.
            raise MessengerUnavailable(retryable=True) from None
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise self.busy(_asked_wait_s(body) or (int(retry_after) if _is_number(retry_after) else 0))
        if body is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR or 300 <= status < 400:
            logger.warning("messenger broken", sender=self._name, status=status)
            raise MessengerUnavailable(retryable=True)
        return Answer(status, body)

    def busy(self, wait_s: int) -> MessengerBusy:
        """Log and build the error of a limit; `wait_s` is what the service asked for, 0 if it did not say."""
        bounded = min(max(wait_s, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)
        logger.warning("messenger busy", sender=self._name, retry_after_s=bounded)
        return MessengerBusy(retry_after_s=bounded)

    async def aclose(self) -> None:
        """Close the connections; may be called more than once."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        # Made with the first call, since aiohttp wants a running loop and adapters are built before there is one.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Content-Type": "application/json", **self._headers},
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(ssl=self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _trusting(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    context = ssl.create_default_context()
    context.load_verify_locations(ca_file)
    return context


async def _read(response: aiohttp.ClientResponse) -> Mapping[str, object] | None:
    """Read a JSON object; None for anything else, and for more than anybody needs."""
    received = bytearray()
    async for chunk in response.content.iter_any():
        received += chunk
        if len(received) > _LARGEST_ANSWER:
            return None
    try:
        body = json.loads(bytes(received))
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _asked_wait_s(body: Mapping[str, object] | None) -> int:
    """Read `parameters.retry_after`, where Telegram says how long to wait; others say it in the header."""
    parameters = (body or {}).get("parameters")
    wait_s = parameters.get("retry_after") if isinstance(parameters, Mapping) else None
    return wait_s if isinstance(wait_s, int) else 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9
