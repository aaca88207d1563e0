"""The HTTP client of adapters that have no SDK: bounded in time and size, patient with faults that pass.

One `HttpClient` serves a whole process. It repeats what may be repeated (tenacity), honours `Retry-After`, and leaves
a service alone that keeps failing (`providers/circuit.py`, one circuit per service and origin). Redirects are not
followed and cookies not kept: none of these APIs needs them, and a redirect could lead a secret elsewhere. Neither
addresses, headers nor bodies are logged here; they hold secrets.
"""

import asyncio
import email.utils
import json as standard_json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
import tenacity

from core.backoff import full_jitter_s
from core.clock import Clock
from core.json import refuse_nul
from providers.addresses import AddressRefused, open_public_socket
from providers.circuit import Circuit, CircuitOpen


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPolicy:
    """How long to wait, and how often to try.

    Times are in seconds. `attempt_s` bounds one attempt and `total_s` the whole call with its pauses. `attempts`
    counts the first one too; with `retry_enabled` off there is only that.
    """

    attempt_s: float = 10.0
    total_s: float = 30.0
    retry_enabled: bool = True
    attempts: int = 3
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 8.0
    circuit_failures: int = 5
    circuit_pause_s: float = 30.0
    max_answer_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What a service answered; headers are matched whatever their case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Decode the body with fractions as Decimals; raises ValueError when it is no JSON that we can store."""
        try:
            value = standard_json.loads(self.body, parse_float=Decimal, parse_constant=_refuse_constant)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        refuse_nul(value)
        return value


class HttpFailure(Exception):
    """A service gave no answer that could be used.

    `retry_after_s` is when it asked to be called again, None when it did not say.
    """

    def __init__(self, reason: str, *, retry_after_s: int | None = None) -> None:
        self.reason = reason
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class HttpUnavailable(HttpFailure):
    """The service cannot be reached, is broken, or is being left alone; what became of the request is unknown."""


class HttpThrottled(HttpFailure):
    """The service is well but has had too many requests of ours."""


class HttpClient:
    """Carries requests to services.

    With `public_only` no connection is made to an address within our own network, whatever name led there; that is for
    addresses that strangers have given.
    """

    def __init__(self, policy: HttpPolicy | None = None, *, clock: Clock, public_only: bool = False) -> None:
        self.policy = policy or HttpPolicy()
        self._clock = clock
        self._public_only = public_only
        self._circuits: dict[tuple[str, str], Circuit] = {}
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        service: str,
        method: str,
        url: str,
        *,
        repeatable: bool,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> HttpAnswer:
        """Make one request; returns any answer below 500 but 429, 408 and 425.

        `repeatable` says that sending it twice does what sending it once does: a read, or a write under an
        idempotency key. What is not repeatable is repeated only when it surely had no effect.

        Raises:
            HttpUnavailable: nothing is known of the outcome, or the circuit is open.
            HttpThrottled: the service answered 429 to the last.
        """
        attempt = _Attempt(method, url, headers or {}, body, repeatable)
        circuit = self._circuit(service, url)
        try:
            with circuit.call():
                return await self._within_time(attempt)
        except CircuitOpen as left_alone:
            raise HttpUnavailable("left alone", retry_after_s=left_alone.retry_after_s) from left_alone
        finally:
            if circuit.is_idle:
                self._circuits.pop(_origin(service, url), None)

    async def aclose(self) -> None:
        """Close connections; may be called more than once."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _within_time(self, attempt: "_Attempt") -> HttpAnswer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.policy.total_s
        attempts = self.policy.attempts if self.policy.retry_enabled else 1

        def is_enough(state: tenacity.RetryCallState) -> bool:
            return state.attempt_number >= attempts or loop.time() + self._pause_s(state) >= deadline

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            stop=is_enough,
            wait=self._pause_s,
            reraise=True,
        )
        try:
            async with asyncio.timeout_at(deadline):
                answer: HttpAnswer = await retrying(self._attempt, attempt)
                return answer
        except _Passing as fault:
            raise fault.failure from fault.__cause__
        except TimeoutError as late:
            raise HttpUnavailable("no answer in time") from late

    def _pause_s(self, state: tenacity.RetryCallState) -> float:
        fault = None if state.outcome is None else state.outcome.exception()
        if isinstance(fault, _Passing) and fault.failure.retry_after_s is not None:
            return fault.failure.retry_after_s
        return full_jitter_s(state.attempt_number, base_s=self.policy.backoff_base_s, cap_s=self.policy.backoff_cap_s)

    async def _attempt(self, attempt: "_Attempt") -> HttpAnswer:
        try:
            answer = await self._send(attempt)
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = HttpUnavailable(type(error).__name__)
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, AddressRefused):
                raise failure from error
            # A connection that was never made carried nothing.
            if attempt.repeatable or isinstance(error, aiohttp.ClientConnectorError):
                raise _Passing(failure) from error
            raise failure from error
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise _Passing(HttpThrottled("429", retry_after_s=self._retry_after_s(answer)))
        if answer.status >= 500 or answer.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY):
            failure = HttpUnavailable(str(answer.status), retry_after_s=self._retry_after_s(answer))
            if attempt.repeatable:
                raise _Passing(failure)
            raise failure
        return answer

    async def _send(self, attempt: "_Attempt") -> HttpAnswer:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=open_public_socket if self._public_only else None),
                timeout=aiohttp.ClientTimeout(total=self.policy.attempt_s),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        async with self._session.request(
            attempt.method, attempt.url, headers=attempt.headers, data=attempt.body, allow_redirects=False
        ) as response:
            return HttpAnswer(response.status, response.headers, await self._read(response))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(65_536):
            body += chunk
            if len(body) > self.policy.max_answer_bytes:
                raise aiohttp.ClientPayloadError("the answer is too long")
        return bytes(body)

    def _retry_after_s(self, answer: HttpAnswer) -> int | None:
        """Read `Retry-After`, which is a number of seconds or a date (RFC 9110, 10.2.3)."""
        value = answer.headers.get("Retry-After", "").strip()
        if value.isascii() and value.isdigit():
            return min(int(value[:6]), 86_400)
        try:
            until = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
        return max(0, round((until - self._clock.now()).total_seconds()))

    def _circuit(self, service: str, url: str) -> Circuit:
        key = _origin(service, url)
        if key not in self._circuits:
            self._circuits[key] = Circuit(
                failures=self.policy.circuit_failures,
                pause=timedelta(seconds=self.policy.circuit_pause_s),
                is_failure=lambda error: isinstance(error, HttpUnavailable),
                clock=self._clock,
            )
        return self._circuits[key]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One request, as often as it is sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    repeatable: bool


class _Passing(Exception):
    """A fault that may pass: try again, or give up with `failure`."""

    def __init__(self, failure: HttpFailure) -> None:
        self.failure = failure
        super().__init__(failure.reason)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _origin(service: str, url: str) -> tuple[str, str]:
    try:
        return service, urlsplit(url).netloc
    except ValueError:
        # No address at all, which the request itself will find out.
        return service, ""
