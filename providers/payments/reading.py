"""Reading a provider's JSON with suspicion: getters check presence, type and size, and name what failed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import NoReturn
from uuid import UUID

from core import json
from providers.payments.contract import VerifiedEvent
from providers.payments.errors import BadPayload, PayloadFault

_LONGEST_REF = 255
_LONGEST_TEXT = 4096
# Wider than any amount of money, and narrow enough to be added up without losing a digit.
_LARGEST_AMOUNT = Decimal(10) ** 15
_FINEST_AMOUNT = Decimal(1).scaleb(-18)


@dataclass(frozen=True, slots=True)
class Node:
    """One JSON object of a payload and the path that led to it.

    `null` counts as absent everywhere. All getters raise BadPayload (`MALFORMED_OBJECT`) for a value of
    another type; those without `or_none` also raise it for an absent one.
    """

    data: Mapping[str, object]
    path: str

    def refuse(self, key: str, problem: str) -> NoReturn:
        raise BadPayload(PayloadFault.MALFORMED_OBJECT, f"{self.path}.{key} {problem}")

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def text(self, key: str) -> str:
        found = self.text_or_none(key)
        return self.refuse(key, "is missing") if found is None else found

    def text_or_none(self, key: str) -> str | None:
        value = self.data.get(key)
        if value is not None and (not isinstance(value, str) or len(value) > _LONGEST_TEXT):
            self.refuse(key, "is not a short text")
        return value

    def ref(self, key: str) -> str:
        found = self.ref_or_none(key)
        return self.refuse(key, "is missing") if found is None else found

    def ref_or_none(self, key: str) -> str | None:
        """Read an id, which stands by itself or, where the provider expanded it, in the object it names."""
        value = self.data.get(key)
        if isinstance(value, Mapping):
            value = value.get("id")
        if value is None:
            return None
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_REF:
            self.refuse(key, "is not an id")
        return value

    def integer(self, key: str) -> int:
        found = self.integer_or_none(key)
        return self.refuse(key, "is missing") if found is None else found

    def integer_or_none(self, key: str) -> int | None:
        value = self.data.get(key)
        # JSON's true and false are ints to Python.
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            self.refuse(key, "is not an integer")
        return value

    def flag(self, key: str) -> bool:
        value = self.data.get(key, False)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "is not a flag")
        return bool(value)

    def moment(self, key: str) -> datetime:
        found = self.moment_or_none(key)
        return self.refuse(key, "is missing") if found is None else found

    def moment_or_none(self, key: str) -> datetime | None:
        """Read unix seconds as an aware UTC datetime."""
        seconds = self.integer_or_none(key)
        if seconds is None:
            return None
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, OSError, ValueError):
            return self.refuse(key, "is not a time")

    def instant(self, key: str) -> datetime:
        found = self.instant_or_none(key)
        return self.refuse(key, "is missing") if found is None else found

    def instant_or_none(self, key: str) -> datetime | None:
        """Read an RFC 3339 text as an aware UTC datetime; one without a zone is UTC."""
        text = self.text_or_none(key)
        if text is None:
            return None
        try:
            read = datetime.fromisoformat(text)
            return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
        except (ValueError, OverflowError):
            return self.refuse(key, "is not a time")

    def amount(self, key: str) -> Decimal:
        found = self.amount_or_none(key)
        return self.refuse(key, "is missing") if found is None else found

    def amount_or_none(self, key: str) -> Decimal | None:
        """Read an amount of money, a text or a number with its digits, that is not negative."""
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal) or len(str(value)) > 40:
            return self.refuse(key, "is not an amount")
        try:
            amount = Decimal(value)
        except InvalidOperation:
            return self.refuse(key, "is not an amount")
        if not amount.is_finite() or not 0 <= amount < _LARGEST_AMOUNT or 0 < amount < _FINEST_AMOUNT:
            return self.refuse(key, "is not an amount")
        return amount

    def currency(self, key: str) -> str:
        """Read a currency's code, in upper case."""
        code = self.text(key).upper()
        if not 3 <= len(code) <= 5 or not code.isascii() or not code.isalnum():
            self.refuse(key, "is not a currency code")
        return code

    def uuid(self, key: str) -> UUID:
        try:
            return UUID(self.text(key))
        except ValueError:
            return self.refuse(key, "is not a UUID")

    def node(self, key: str) -> "Node":
        found = self.node_or_none(key)
        return self.refuse(key, "is missing") if found is None else found

    def node_or_none(self, key: str) -> "Node | None":
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.refuse(key, "is not an object")
        return Node(value, f"{self.path}.{key}")

    def listed(self, key: str) -> Iterator["Node"]:
        """Walk a Stripe list, `{"data": [{...}, ...]}`; an absent list is an empty one."""
        holder = self.node_or_none(key)
        return self._walk(key, None if holder is None else holder.data.get("data"))

    def rows(self, key: str) -> Iterator["Node"]:
        """Walk a JSON list of objects; an absent one is empty."""
        return self._walk(key, self.data.get(key))

    def required_rows(self, key: str) -> Iterator["Node"]:
        """Walk a JSON list of objects that must be there, lest no list be taken for an empty one."""
        if key not in self:
            self.refuse(key, "is missing")
        return self.rows(key)

    def _walk(self, key: str, rows: object) -> Iterator["Node"]:
        if rows is None:
            return
        if not isinstance(rows, list):
            self.refuse(key, "is not a list")
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                self.refuse(key, "holds something else than objects")
            yield Node(row, f"{self.path}.{key}[{index}]")


def read_object(body: bytes, *, provider: str) -> dict[str, object]:
    """Read a signed body that must be a JSON object.

    Raises:
        BadPayload: it is not; `provider` goes into the text.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadPayload(PayloadFault.NOT_AN_EVENT, f"Invalid {provider} webhook payload") from error
    if not isinstance(payload, dict):
        raise BadPayload(PayloadFault.NOT_AN_EVENT, f"Invalid {provider} webhook payload")
    return payload


@contextmanager
def reading_identity(provider: str) -> Iterator[None]:
    """Wrap the reading of an event's id, type and time: what fails there leaves no event to speak of."""
    try:
        yield
    except BadPayload as error:
        raise BadPayload(PayloadFault.MISSING_FIELDS, f"{provider} event missing required fields") from error


def read_envelope(body: bytes, *, provider: str, signed_at: datetime) -> VerifiedEvent:
    """Read `{id, type, created?, account?, ...}`, the envelope that Stripe made common.

    An event that does not say when it was created happened when it was signed, as far as anybody can tell.

    Raises:
        BadPayload: the body is not a JSON object, or lacks its id or type; `provider` goes into the text.
    """
    return envelope_of(read_object(body, provider=provider), provider=provider, at=signed_at)


def envelope_of(payload: Mapping[str, object], *, provider: str, at: datetime) -> VerifiedEvent:
    """Read the same of a payload that is decoded already; `at` is for one that does not say when it was created.

    Raises:
        BadPayload: it lacks its id or type.
    """
    envelope = Node(payload, "event")
    with reading_identity(provider):
        return VerifiedEvent(
            event_id=envelope.ref("id"),
            account=envelope.ref_or_none("account") or "",
            type=envelope.ref("type"),
            occurred_at=envelope.moment_or_none("created") or at,
            payload=dict(payload),
        )
