"""Telegram Gateway: codes to phone numbers that have a Telegram account, for a fee (core.telegram.org/gateway/api).

Every message is asked for in two calls. The first one (checkSendAbility) says whether the number can be reached, is
charged, and gives a request id. The second one (sendVerificationMessage) sends under this id without a further charge,
and is taken only once; so it can be repeated after a lost answer without sending or paying twice. What is not delivered
within the code's life is refunded.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from pydantic import TypeAdapter

from core.phones import mask_phone
from providers.messengers.connection import Answer, Connection
from providers.messengers.contract import (
    CodeMessage,
    CodeSent,
    DeliveryReport,
    DeliveryStatus,
    MessengerUnavailable,
    RecipientUnreachable,
    SenderCapabilities,
    UnreachableBecause,
    UpdateNotProven,
    UpdateUnreadable,
)
from providers.messengers.webhook import Wire, read_json

SENDER: Final = "telegram_gateway"
DEFAULT_API_BASE: Final = "https://gatewayapi.telegram.org"
REPORT_TOLERANCE: Final = timedelta(seconds=300)
"""How far the time of a report may lie from ours, in both directions."""

# What the API takes as a message's life.
_SHORTEST_TTL_S: Final = 30
_LONGEST_TTL_S: Final = 3600
_ALREADY_SENT: Final = "MESSAGE_ALREADY_SENT"
# The names of the errors are not documented as a list; these are the observed ones that speak of the number.
_NO_ACCOUNT: Final = ("PHONE_NUMBER_NOT_FOUND", "PHONE_NUMBER_NOT_AVAILABLE", "PHONE_NUMBER_INVALID")
_FLOOD: Final = re.compile(r"FLOOD_WAIT(?:_([0-9]{1,9}))?")
_ERROR_NAME: Final = re.compile(r"[A-Z0-9_]{1,64}")

logger = structlog.get_logger(__name__)


class _DeliveryStatus(Wire):
    status: str
    updated_at: int


class _RequestStatus(Wire):
    request_id: str
    payload: str | None = None
    delivery_status: _DeliveryStatus | None = None


_REPORT: Final = TypeAdapter(_RequestStatus)


class TelegramGateway:
    """The adapter for one Gateway account.

    Args:
        token: the API token.
        api_base: where the API is.
        sender_username: a verified channel of the same account in whose name codes are sent; empty for Telegram's own.
        callback_url: where delivery reports go (https); empty for none.
        timeout_s: bounds each of the calls.
    """

    def __init__(
        self,
        *,
        token: str,
        api_base: str = DEFAULT_API_BASE,
        sender_username: str = "",
        callback_url: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._report_key = hashlib.sha256(token.encode()).digest()
        options = {"sender_username": sender_username, "callback_url": callback_url}
        self._options = {name: value for name, value in options.items() if value}
        self._connection = Connection(
            name=SENDER, base_url=api_base, headers={"Authorization": f"Bearer {token}"}, timeout_s=timeout_s
        )

    @property
    def name(self) -> str:
        return SENDER

    @property
    def capabilities(self) -> SenderCapabilities:
        return SenderCapabilities(reach="phone", development_only=False)

    async def send(self, message: CodeMessage) -> CodeSent:
        """See `CodeSender.send`."""
        request_id = await self._open_request(message.phone)
        parameters = {
            "phone_number": message.phone,
            "request_id": request_id,
            "code": message.code,
            "ttl": min(max(message.lifetime_s, _SHORTEST_TTL_S), _LONGEST_TTL_S),
            # Comes back in the reports.
            "payload": str(message.id),
            **self._options,
        }
        try:
            answer = await self._connection.post("sendVerificationMessage", parameters)
        except MessengerUnavailable:
            # The answer was lost, perhaps with the message. Under the same request id it cannot be sent twice.
            answer = await self._connection.post("sendVerificationMessage", parameters)
        if answer.text("error") != _ALREADY_SENT:
            self._result(answer)
        logger.info("code sent", sender=SENDER, recipient=mask_phone(message.phone))
        return CodeSent(reference=request_id)

    def read_report(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> DeliveryReport | None:
        """Prove that Telegram sent a delivery report, and read it; None if it says nothing of delivery.

        Raises:
            UpdateNotProven: the signature is missing or wrong, or lies further than `REPORT_TOLERANCE` from `now`.
            UpdateUnreadable: the body is no report.
        """
        given = {name.lower(): value for name, value in headers.items()}
        timestamp = given.get("x-request-timestamp", "")
        expected = hmac.new(self._report_key, f"{timestamp}\n".encode("utf-8", "replace") + body, hashlib.sha256)
        signature = given.get("x-request-signature", "").lower().encode("utf-8", "replace")
        if not hmac.compare_digest(expected.hexdigest().encode(), signature):
            raise UpdateNotProven
        if not _is_near(timestamp, now):
            raise UpdateNotProven
        report = read_json(_REPORT, body)
        if report.delivery_status is None or not 0 < len(report.request_id) <= 255:
            return None
        return _as_report(report.request_id, report.payload, report.delivery_status)

    async def aclose(self) -> None:
        """See `CodeSender.aclose`."""
        await self._connection.aclose()

    async def _open_request(self, phone: str) -> str:
        answer = await self._connection.post("checkSendAbility", {"phone_number": phone})
        request_id = self._result(answer).get("request_id")
        if not isinstance(request_id, str) or not 0 < len(request_id) <= 255:
            logger.warning("messenger broken", sender=SENDER, error="no request id")
            raise MessengerUnavailable(retryable=True)
        return request_id

    def _result(self, answer: Answer) -> Mapping[str, object]:
        result = answer.body.get("result")
        if answer.body.get("ok") is True and isinstance(result, Mapping):
            return result
        error = answer.text("error")
        if error in _NO_ACCOUNT:
            raise RecipientUnreachable(UnreachableBecause.NO_ACCOUNT)
        if flood := _FLOOD.fullmatch(error):
            raise self._connection.busy(int(flood[1] or 0))
        shown = error if _ERROR_NAME.fullmatch(error) else "unknown"
        logger.error("messenger refuses us", sender=SENDER, status=answer.status, error=shown)
        # An answer that is neither yes nor no says nothing of the next one.
        raise MessengerUnavailable(retryable=answer.body.get("ok") is not False)


def _is_near(timestamp: str, now: datetime) -> bool:
    is_time = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12
    return is_time and abs(now.timestamp() - int(timestamp)) <= REPORT_TOLERANCE.total_seconds()


def _as_report(request_id: str, payload: str | None, delivery: _DeliveryStatus) -> DeliveryReport | None:
    try:
        status = DeliveryStatus(delivery.status)
    except ValueError:
        # A status that Telegram added since.
        return None
    message_id = None
    with suppress(ValueError):
        message_id = UUID(payload or "")
    try:
        at = datetime.fromtimestamp(delivery.updated_at, UTC)
    except (OverflowError, OSError, ValueError):
        raise UpdateUnreadable from None
    return DeliveryReport(message_id=message_id, reference=request_id, status=status, at=at)
