"""What the doors for people with phones share: how a number and a code are read, and how refusals are worded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo

from core.errors import DomainError
from core.phones import PhoneInvalid, parse_phone
from handlers.rest import WireModel

INVALID_OTP: Final = "Invalid OTP"


def _read_phone(text: str, info: ValidationInfo) -> str:
    """Return the number in E.164; raises PhoneInvalid, which names the field."""
    try:
        return parse_phone(text)
    except PhoneInvalid as error:
        problem = {"field": f"body -> {info.field_name}", "message": error.text, "type": "phone_invalid"}
        error.details = {**error.details, "errors": [problem]}
        raise


Phone = Annotated[str, Field(max_length=64, examples=["+79991234567"]), AfterValidator(_read_phone)]
"""A number however people write it; the model holds it in E.164."""

# Anything that is not six digits is simply wrong; the bound only keeps out what nobody types.
Code = Annotated[str, StringConstraints(min_length=1, max_length=64)]
# Which messengers there are is for the service to say.
Provider = Annotated[str, StringConstraints(min_length=1, max_length=32)]


class PhoneRegisterBody(WireModel):
    """A phone and the code that proves it."""

    phone: Phone
    code: Code


@contextmanager
def worded(texts: Mapping[type[DomainError], str]) -> Iterator[None]:
    """Give refusals of exactly these kinds the text that the clients of this door show."""
    try:
        yield
    except DomainError as error:
        error.text = texts.get(type(error), error.text)
        raise
