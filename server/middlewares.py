"""What happens to every request: an id, the client's address, one form for every error, and a line in the log."""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from uuid import uuid4

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from core.errors import DomainError
from handlers.context import CLIENT_IP, REQUEST_ID
from handlers.errors import CODE_OF_STATUS, error_response, response_to
from services.outage import is_outage

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_RETRY_AFTER_S = "5"

logger = structlog.get_logger("http")


def request_id_of(request: web.BaseRequest) -> str:
    """Return the id that the client gave when it is a sane one, else a new one."""
    given = request.headers.get("X-Request-ID", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id and echo it."""
    request_id = request_id_of(request)
    request[REQUEST_ID] = request_id
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        try:
            response = await handler(request)
        except web.HTTPException as error:
            # A redirect is raised and not returned.
            error.headers["X-Request-ID"] = request_id
            raise
    if not response.prepared:
        response.headers["X-Request-ID"] = request_id
    return response


def locate(trusted_proxies: Sequence[str]) -> Middleware:
    """Return a middleware that finds the client's address behind `trusted_proxies` (networks in CIDR form)."""
    networks = [ipaddress.ip_network(item, strict=False) for item in trusted_proxies]

    def trusted(address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in networks)

    @web.middleware
    async def find(request: web.Request, handler: Handler) -> web.StreamResponse:
        address = request.remote or ""
        hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        # The chain is read from the nearest hop outwards, and only as far as each hop is one of ours.
        for hop in reversed(hops):
            forwarded = _parsed(hop.strip())
            if forwarded is None or not trusted(address):
                break
            address = str(forwarded)
        request[CLIENT_IP] = address
        return await handler(request)

    return find


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    # What a listener for both families calls an IPv4 address.
    return getattr(parsed, "ipv4_mapped", None) or parsed


@web.middleware
async def log_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Write one line per request; long-lived sockets and health checks are left out."""
    started = perf_counter()
    response = await handler(request)
    if not response.prepared and request.path not in ("/health", "/ready"):
        took_ms = round((perf_counter() - started) * 1000, 1)
        # The route's pattern and not the path, because a path may hold a one-time token.
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "(no route)"
        logger.info("request", method=request.method, path=path, status=response.status, ms=took_ms)
    return response


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every exception into the one error body; what is not expected is logged and leaks nothing."""
    try:
        return await handler(request)
    except DomainError as error:
        return response_to(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        _log_refused_origin(request, error)
        told = {name: error.headers[name] for name in ("Allow", "Accept-Encoding") if name in error.headers}
        code = CODE_OF_STATUS.get(error.status, "HTTP_ERROR")
        response = error_response(error.status, code=code, message=error.reason, headers=told)
        if error.status == 408:
            # The rest of the body may still come, and would be taken for the next request.
            response.force_close()
        return response
    except Exception as error:
        if request.writer.output_size:
            # An answer has begun already, and a second one within it would be read as its content.
            logger.exception("answer broken off")
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError from error
        if error is request.content.exception():
            # The client broke off or packed wrongly, and no further request can be read on its connection.
            response = error_response(400, code="BAD_REQUEST", message="The request body cannot be read")
            response.force_close()
            return response
        if is_outage(error):
            logger.warning("a store is away", error=repr(error))
            return error_response(
                503,
                code="UNAVAILABLE",
                message="Service temporarily unavailable",
                headers={"Retry-After": _RETRY_AFTER_S},
            )
        logger.exception("request failed")
        details = {"request_id": request[REQUEST_ID]}
        return error_response(500, code="INTERNAL", message="Internal server error", details=details)


def _log_refused_origin(request: web.Request, error: web.HTTPException) -> None:
    # aiohttp-cors tells the reason to nobody but the browser, which hides it from the page.
    if request.method == "OPTIONS" and error.status == 403:
        origin = request.headers.get("Origin", "")
        logger.warning("cross-origin request refused", origin=origin, reason=error.text)
