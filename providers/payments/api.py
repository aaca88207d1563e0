"""One provider's HTTP API: requests out, JSON in, and whatever goes wrong in the contract's errors."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from core import json
from providers.http import HttpAnswer, HttpClient, HttpFailure
from providers.payments.errors import BadPayload, ProviderRejected, ProviderUnavailable
from providers.payments.reading import Node

_log = logging.getLogger(__name__)

# What providers use for ids. Anything else is no id of theirs, and must not reach a path.
_REF: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
MISSING: Final = "resource_missing"


class ProviderApi:
    """Speaks to one provider at one address.

    Args:
        provider: the provider's name, for logs and for its circuit.
        base_url: where the API is, without a trailing slash or with one.
        reason: reads the provider's own code out of an error's body; the code is logged and shown.
    """

    def __init__(self, http: HttpClient, *, provider: str, base_url: str, reason: Callable[[Node], str | None]) -> None:
        self._http = http
        self._provider = provider
        self._reason = reason
        self.base_url = base_url.rstrip("/")

    async def call(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        repeatable: bool,
        headers: Mapping[str, str] | None = None,
        json_body: Mapping[str, object] | None = None,
        body: bytes | None = None,
    ) -> Node:
        """Make a request; returns the answer's JSON object, a JSON list as the field `items` of one.

        `operation` is what the log calls it. `repeatable` is `HttpClient.request`'s.

        Raises:
            ProviderUnavailable: no answer, a broken one, or refused credentials.
            ProviderRejected: a refusal; `details["reason"]` is the provider's code, or `resource_missing` for 404.
        """
        sent = {"Accept": "application/json", **(headers or {})}
        if json_body is not None:
            sent["Content-Type"] = "application/json"
            body = json.dumps(json_body)
        try:
            answer = await self._http.request(
                self._provider, method, self.base_url + path, repeatable=repeatable, headers=sent, body=body
            )
        except HttpFailure as failure:
            _log.warning("%s %s failed: %s", self._provider, operation, failure.reason)
            raise ProviderUnavailable(retryable=True, retry_after_s=failure.retry_after_s) from failure
        return self._read(operation, answer)

    def _read(self, operation: str, answer: HttpAnswer) -> Node:
        value = _decode(answer)
        node = Node(value or {}, operation)
        if 200 <= answer.status < 300:
            if value is None:
                _log.warning("%s %s failed: the answer is no JSON object", self._provider, operation)
                raise ProviderUnavailable(retryable=True)
            return node
        reason = self._reason_of(node)
        _log.warning("%s %s refused: status=%s code=%s", self._provider, operation, answer.status, reason)
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise ProviderUnavailable(retryable=False)
        if answer.status < 400:
            # No API of these redirects: something else answers at its address.
            raise ProviderUnavailable(retryable=True)
        if answer.status == HTTPStatus.NOT_FOUND:
            raise ProviderRejected(details={"reason": MISSING, "code": reason})
        raise ProviderRejected(details={"reason": reason or str(answer.status)})

    def _reason_of(self, node: Node) -> str | None:
        try:
            reason = self._reason(node)
        except BadPayload:
            return None
        # It goes into logs and answers, so it must be a code and not a sentence that quotes somebody.
        return reason if reason is not None and re.fullmatch(r"[\w.:-]{1,64}", reason, re.ASCII) else None


def _decode(answer: HttpAnswer) -> dict[str, object] | None:
    if not answer.body.strip():
        return {}
    try:
        value = answer.json()
    except ValueError:
        return None
    if isinstance(value, list):
        return {"items": value}
    return value if isinstance(value, dict) else None


@contextmanager
def reading_answer() -> Iterator[None]:
    """Have what is read inside be whole: an answer that lacks what it must have is as good as none.

    Raises:
        ProviderUnavailable: it cannot be read; asking again may help.
    """
    try:
        yield
    except BadPayload as nonsense:
        raise ProviderUnavailable(retryable=True) from nonsense


def known_ref(ref: str) -> bool:
    """Tell whether a text may be an id of any provider's, and so part of a path."""
    return _REF.fullmatch(ref) is not None


def require_ref(ref: str) -> str:
    """Return an id that may be part of a path.

    Raises:
        ProviderRejected: no provider has such an id.
    """
    if not known_ref(ref):
        raise ProviderRejected(details={"reason": MISSING})
    return ref


def is_missing(refusal: ProviderRejected) -> bool:
    """Tell whether a refusal says that there is no such thing."""
    return refusal.details.get("reason") == MISSING
