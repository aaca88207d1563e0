"""The REST door's one table from domain errors to statuses, and the one error body (contract.md 1.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ValidationError

from core import json
from core.errors import DomainError, ErrorKind

STATUS_OF = {
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.INVALID: 422,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.GONE: 410,
    ErrorKind.PAYMENT_REQUIRED: 402,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.UNAVAILABLE: 503,
}

# Codes for refusals that aiohttp itself gives before any handler runs.
CODE_OF_STATUS = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    414: "URI_TOO_LONG",
    415: "UNSUPPORTED_MEDIA_TYPE",
    417: "EXPECTATION_FAILED",
    431: "HEADER_TOO_LARGE",
}

# A body packed in another way is refused with these (RFC 9110, 12.5.3).
CODING_UNKNOWN = "The request body is packed in an unknown way"
ACCEPTED_CODINGS = {"Accept-Encoding": "gzip, deflate"}


class ErrorDetail(BaseModel):
    """The machine's half of an error."""

    code: str
    message: str
    details: dict[str, Any] = {}


class FieldError(BaseModel):
    """One refused field: `field` is its place, joined by ` -> `."""

    field: str
    message: str
    type: str


class ErrorBody(BaseModel):
    """The one error body, in which every released client finds the key it reads."""

    status: str = "error"
    data: None = None
    message: str
    detail: str
    error: ErrorDetail
    errors: list[FieldError] | None = None


def error_response(
    status: int,
    *,
    code: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    errors: Sequence[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Build an error answer; `errors` is present only for refused fields."""
    body = ErrorBody(
        message=message,
        detail=message,
        error=ErrorDetail(code=code, message=message, details=dict(details or {})),
        errors=list(errors) if errors is not None else None,
    )
    shown = body.model_dump(exclude={"errors"} if errors is None else set())
    return web.Response(
        body=json.dumps(shown), status=status, content_type="application/json", headers=dict(headers or {})
    )


def response_to(error: DomainError) -> web.Response:
    """Answer a domain error."""
    status = STATUS_OF[error.kind]
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    errors = [FieldError(**item) for item in error.details.get("errors", [])] if status == 422 else None  # type: ignore[attr-defined]
    details = {key: value for key, value in error.details.items() if key != "errors"}
    return error_response(status, code=error.code, message=error.text, details=details, errors=errors, headers=headers)


def field_errors(error: ValidationError, place: str) -> list[FieldError]:
    """Name the refused fields of a model; `place` is `body`, `query` or `path`."""
    return [
        FieldError(
            field=" -> ".join([place, *(str(part) for part in item["loc"])]), message=item["msg"], type=item["type"]
        )
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
