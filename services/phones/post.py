"""The post: messages for messengers are rows written with the fact they tell of, and the worker delivers them.

A message may be delivered twice, when a worker is lost with it in hand; it is the same code then.
"""

import math
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy import or_, select, update

from core.backoff import full_jitter_s
from core.i18n import TEXTS
from core.sealing import SealBroken, Sealer
from models.messengers import MessageKind, MessageState, MessengerMessage
from models.phones import CODE_LIFETIME
from providers.messengers import (
    CodeMessage,
    CodeSender,
    MessengerBot,
    MessengerBusy,
    MessengerUnavailable,
    RecipientUnreachable,
)
from services.phones.chats import forget_chat
from services.phones.roads import Roads
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

TASK = "phones.send"

# Longer than any sender takes, so that a message is not sent by two workers at once.
_LEASE = timedelta(seconds=45)
_SWEEP_LIMIT = 200
# An answer of the bot to somebody who has long gone away is noise.
_TEXT_LIFETIME = timedelta(minutes=10)
_BUTTON = "messengers.button"
_SCOPE = PlatformScope("messages belong to people, not to a tenant")

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claimed:
    """A message in hand; `attempt` is the fence."""

    id: UUID
    kind: MessageKind
    sender: str
    phone: str | None
    address: str | None
    text: str
    locale: str
    sealed_code: str
    lifetime_s: int
    attempt: int


class Post:
    """Keeps messages until a messenger has taken them or they are too old to matter."""

    def __init__(self, *, units: UnitOfWorkFactory, roads: Roads, sealer: Sealer) -> None:
        self._units = units
        self._roads = roads
        self._sealer = sealer
        self._senders = roads.senders

    async def enqueue_code(
        self, uow: UnitOfWork, *, sender: CodeSender, phone: str, address: str | None, code: str, locale: str
    ) -> None:
        """Write a code for a phone; one that was still on its way is void, and need not arrive any more."""
        await uow.session.execute(
            update(MessengerMessage)
            .where(
                MessengerMessage.phone == phone,
                MessengerMessage.kind == MessageKind.CODE,
                MessengerMessage.state == MessageState.WAITING,
            )
            .values(state=MessageState.DEAD, sealed_code="", last_error="replaced")
        )
        message_id = uuid4()
        uow.session.add(
            MessengerMessage(
                id=message_id,
                kind=MessageKind.CODE,
                sender=sender.name,
                phone=phone,
                address=address,
                text="messengers.code",
                locale=locale,
                sealed_code=self._sealer.seal(code, subject=_subject(message_id)),
                state=MessageState.WAITING,
                attempts=0,
                next_attempt_at=uow.now,
                expires_at=uow.now + CODE_LIFETIME,
                created_at=uow.now,
            )
        )
        uow.ring(TASK, message_id)

    def enqueue_text(
        self,
        uow: UnitOfWork,
        *,
        bot: MessengerBot,
        address: str,
        text: str,
        locale: str,
        kind: MessageKind = MessageKind.TEXT,
    ) -> None:
        """Write a text of the catalogue (locales/*/messengers.yml) into a chat."""
        message_id = uuid4()
        uow.session.add(
            MessengerMessage(
                id=message_id,
                kind=kind,
                sender=bot.name,
                address=address,
                text=f"messengers.{text}",
                locale=locale,
                sealed_code="",
                state=MessageState.WAITING,
                attempts=0,
                next_attempt_at=uow.now,
                expires_at=uow.now + _TEXT_LIFETIME,
                created_at=uow.now,
            )
        )
        uow.ring(TASK, message_id)

    async def send(self, message_id: UUID) -> None:
        """Try to send one message; does nothing when it is sent, dead, or in another worker's hands."""
        claimed = await self._claim(message_id)
        if claimed is None:
            return
        try:
            reference = await self._hand_over(claimed)
        except RecipientUnreachable as error:
            await self._turn(claimed, error)
        except MessengerBusy as error:
            await self._postpone(claimed, "busy", wait_s=float(error.retry_after_s or 1))
        except MessengerUnavailable as error:
            if error.retryable:
                await self._postpone(claimed, "unavailable", wait_s=full_jitter_s(claimed.attempt, base_s=4, cap_s=60))
            else:
                await self._bury(claimed, "refused")
        except SealBroken:
            # The server's secret was replaced while the code was on its way, and the former one forgotten.
            await self._bury(claimed, "unreadable")
        else:
            await self._settle(claimed, reference)

    async def sweep(self) -> None:
        """Ring again for messages whose time has come: retries, lost rings, and workers that died holding one."""
        async with self._units(_SCOPE) as uow:
            due = await uow.session.scalars(
                select(MessengerMessage.id)
                .where(MessengerMessage.state == MessageState.WAITING, MessengerMessage.next_attempt_at <= uow.now)
                .order_by(MessengerMessage.next_attempt_at)
                .limit(_SWEEP_LIMIT)
            )
            for message_id in due:
                uow.ring(TASK, message_id)

    async def _claim(self, message_id: UUID) -> _Claimed | None:
        async with self._units(_SCOPE) as uow:
            message = await uow.session.scalar(
                select(MessengerMessage)
                .where(
                    MessengerMessage.id == message_id,
                    MessengerMessage.state == MessageState.WAITING,
                    # One that nobody has tried yet is due even if this machine's clock is behind the writer's.
                    or_(MessengerMessage.next_attempt_at <= uow.now, MessengerMessage.attempts == 0),
                )
                .with_for_update(skip_locked=True)
            )
            if message is None:
                return None
            if message.sender not in self._senders:
                # It was switched off between writing and sending.
                message.bury("no sender")
                return None
            if not message.claim(now=uow.now, lease=_LEASE):
                return None
            return _Claimed(
                id=message.id,
                kind=message.kind,
                sender=message.sender,
                phone=message.phone,
                address=message.address,
                text=message.text,
                locale=message.locale,
                sealed_code=message.sealed_code,
                lifetime_s=math.ceil((message.expires_at - uow.now).total_seconds()),
                attempt=message.attempts,
            )

    async def _hand_over(self, message: _Claimed) -> str:
        if message.kind is MessageKind.CODE:
            return await self._send_code(message)
        bot = self._bot(message)
        text = TEXTS.text(message.text, message.locale)
        if message.kind is MessageKind.QUESTION:
            button = TEXTS.text(_BUTTON, message.locale)
            await bot.ask_for_contact(message.address or "", text=text, button=button)
        else:
            await bot.say(message.address or "", text)
        return ""

    async def _send_code(self, message: _Claimed) -> str:
        code = self._sealer.open(message.sealed_code, subject=_subject(message.id))
        minutes = math.ceil(message.lifetime_s / 60)
        sent = await self._senders[message.sender].send(
            CodeMessage(
                id=message.id,
                phone=message.phone or "",
                address=message.address,
                code=code,
                text=TEXTS.text(message.text, message.locale, code=code, minutes=minutes),
                lifetime_s=message.lifetime_s,
            )
        )
        return sent.reference

    def _bot(self, message: _Claimed) -> MessengerBot:
        messenger = self._roads.messenger_of(message.sender)
        if messenger is None:
            raise MessengerUnavailable(retryable=False)
        return self._roads.bots[messenger]

    async def _settle(self, claimed: _Claimed, reference: str) -> None:
        async with self._units(_SCOPE) as uow:
            message = await self._waiting(uow, claimed)
            if message is not None:
                message.mark_sent(reference, now=uow.now)

    async def _postpone(self, claimed: _Claimed, error: str, *, wait_s: float) -> None:
        async with self._units(_SCOPE) as uow:
            message = await self._waiting(uow, claimed)
            if message is not None:
                message.postpone(error, retry_at=uow.now + timedelta(seconds=wait_s))
                logger.warning("message not sent", sender=claimed.sender, error=error, state=message.state.value)

    async def _bury(self, claimed: _Claimed, error: str) -> None:
        async with self._units(_SCOPE) as uow:
            message = await self._waiting(uow, claimed)
            if message is not None:
                message.bury(error)
                logger.error("message given up", sender=claimed.sender, error=error)

    async def _turn(self, claimed: _Claimed, error: RecipientUnreachable) -> None:
        """Forget a chat that is closed to us, and send a code by another road if there is one."""
        async with self._units(_SCOPE) as uow:
            messenger = self._roads.messenger_of(claimed.sender)
            if messenger is not None and claimed.address is not None:
                await forget_chat(uow, messenger=messenger, address=claimed.address)
            message = await self._waiting(uow, claimed)
            if message is None:
                return
            other = self._roads.beside(claimed.sender)
            if claimed.kind is not MessageKind.CODE or other is None:
                message.bury(error.reason.value)
                return
            message.turn(other.name, now=uow.now)
            uow.ring(TASK, message.id)

    async def _waiting(self, uow: UnitOfWork, claimed: _Claimed) -> MessengerMessage | None:
        # The attempt is the fence: a worker that outlived its lease decides nothing any more.
        message: MessengerMessage | None = await uow.session.scalar(
            select(MessengerMessage)
            .where(
                MessengerMessage.id == claimed.id,
                MessengerMessage.state == MessageState.WAITING,
                MessengerMessage.attempts == claimed.attempt,
                MessengerMessage.sender == claimed.sender,
            )
            .with_for_update()
        )
        return message


def _subject(message_id: UUID) -> str:
    return f"code of message {message_id}"
