"""The HTTP server beneath the application: what aiohttp refuses by itself gets the one error body as well.

A request that cannot be read never reaches the middlewares, and neither does one that expects what aiohttp does not
know. aiohttp answers both in plain text, and logs the first as if the fault were ours.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, ContentEncodingError, HttpProcessingError, LineTooLong

from handlers.errors import ACCEPTED_CODINGS, CODE_OF_STATUS, CODING_UNKNOWN, error_response
from server.middlewares import request_id_of

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# Bytes. RFC 9112, 3 asks for room for at least so long a request line. A header may be a little longer, and by its
# limit a `LineTooLong` tells which of the two it was.
_MAX_URL = 8000
_MAX_HEADER = 8190
# How long a connection may stand without a whole request on it, in seconds; proxies keep theirs for 60.
_IDLE_S = 75.0

logger = structlog.get_logger("http")


class Runner(web.AppRunner):
    """Runs an application so that every refusal of a request has the one form."""

    def __init__(self, app: web.Application, *, shutdown_timeout: float) -> None:
        super().__init__(
            app,
            shutdown_timeout=shutdown_timeout,
            access_log=None,
            max_line_size=_MAX_URL,
            max_field_size=_MAX_HEADER,
            keepalive_timeout=_IDLE_S,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(_answering(made.request_handler), request_factory=made.request_factory, **self._kwargs)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be read; what failed outside every middleware is left to aiohttp."""
        if isinstance(exc, HttpProcessingError):
            return _answer_unreadable(request, exc)
        return super().handle_error(request, status, exc, message)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """End once a request under way is answered; a connection that has asked for nothing yet ends at once.

        aiohttp would wait in full for one that was accepted just before the listener was closed.
        """
        self.close()
        await super().shutdown(timeout)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log a fault, but not that the rest of a body, which nobody wanted to read, cannot be unpacked."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)


def _answering(handler: _Handler) -> _Handler:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            # The middlewares let no refusal out, so this one came before them: an expectation that is not met.
            return _refusal(request, error.status, error.reason)

    return answer


def _answer_unreadable(request: web.BaseRequest, error: HttpProcessingError) -> web.StreamResponse:
    if isinstance(error, ContentEncodingError):
        return _refusal(request, 415, CODING_UNKNOWN, headers=ACCEPTED_CODINGS)
    if isinstance(error, LineTooLong):
        if error.args[1] == _MAX_URL:
            return _refusal(request, 414, "The URL is too long")
        return _refusal(request, 431, "A header is too long")
    if isinstance(error, BadHttpMethod):
        return _refusal(request, 400, "Unknown request method")
    return _refusal(request, 400, "This is not a valid HTTP request")


def _refusal(
    request: web.BaseRequest, status: int, message: str, *, headers: Mapping[str, str] | None = None
) -> web.Response:
    request_id = request_id_of(request)
    logger.info("request refused", status=status, reason=message, request_id=request_id)
    response = error_response(
        status,
        code=CODE_OF_STATUS.get(status, "HTTP_ERROR"),
        message=message,
        headers={**(headers or {}), "X-Request-ID": request_id},
    )
    # Where this request ends is not known, so nothing that follows it on its connection could be read.
    response.force_close()
    return response
