"""What a request brings: its bytes, bounded in size and time, and what they and its parameters say."""

import asyncio
from typing import Any

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from core import json
from core.errors import DomainError, ErrorKind, InvalidInput
from handlers.context import CONTEXT
from handlers.errors import ACCEPTED_CODINGS, CODING_UNKNOWN, FieldError, field_errors

# What aiohttp has unpacked by now, or has refused because this machine lacks the codec; anything else it leaves packed.
_CODINGS = ("", "identity", "gzip", "deflate", "br", "zstd")


class PayloadTooLarge(DomainError):
    """The body is larger than this server reads."""

    kind = ErrorKind.TOO_LARGE
    code = "PAYLOAD_TOO_LARGE"
    message = "The request body is too large"


async def read_body(request: web.Request, model: type[BaseModel], *, required: bool) -> BaseModel:
    """Return the body as its model; an absent one stands for an empty object unless it is `required`.

    Raises:
        InvalidInput: it is no JSON, or not what the model wants.
        PayloadTooLarge: see `read_bytes`.
    """
    if request.headers.get("Content-Encoding", "").lower() not in _CODINGS:
        raise web.HTTPUnsupportedMediaType(reason=CODING_UNKNOWN, headers=ACCEPTED_CODINGS)
    text = await read_bytes(request)
    if not text.strip() and not required:
        text = b"{}"
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _malformed("body", f"JSON decode error: {error}") from error
    if value is None and not required:
        value = {}
    body: BaseModel = validate(TypeAdapter(model), value, "body")
    return body


async def read_bytes(request: web.Request) -> bytes:
    """Return the whole body; raises PayloadTooLarge, and HTTPRequestTimeout when it comes too slowly."""
    try:
        async with asyncio.timeout(request.app[CONTEXT].request_timeout_s):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise PayloadTooLarge from error
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(reason="The request body did not come in time") from error


def _malformed(place: str, message: str) -> InvalidInput:
    problem = FieldError(field=place, message=message, type="json_invalid")
    return InvalidInput(details={"errors": [problem.model_dump()]})


def validate(adapter: TypeAdapter[Any], value: object, place: str) -> Any:
    """Check what stands in the `body`, the `query` or the `path`; raises InvalidInput, naming every fault."""
    try:
        if place != "body":
            json.refuse_nul(value)
        return adapter.validate_python(value)
    except ValidationError as error:
        problems = field_errors(error, place)
    except ValueError as error:
        problems = [FieldError(field=place, message=str(error), type="value_error")]
    raise InvalidInput(details={"errors": [problem.model_dump() for problem in problems]})
