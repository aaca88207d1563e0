"""Mail: letters are rows written with the fact they tell of, and leave afterwards."""

from datetime import timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy import or_, select

from core.backoff import full_jitter_s
from core.i18n import TEXTS
from models.mail import MailState, OutboundMail
from providers.mail import Letter, MailNotSent, MailTransport
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

TASK = "mail.send"

# Longer than any transport takes, so that a letter is not sent by two workers at once.
_LEASE = timedelta(minutes=2)
# Whoever asks again and again must not fill somebody's letter box.
LETTER_PAUSE = timedelta(minutes=1)
_SWEEP_LIMIT = 200
_SUBJECT_LENGTH = 255
_SCOPE = PlatformScope("letters belong to people, not to a tenant")

logger = structlog.get_logger(__name__)


class MailService:
    """Keeps letters until a transport has taken them: at least once, each attempt by one worker."""

    def __init__(self, units: UnitOfWorkFactory, transport: MailTransport) -> None:
        self._units = units
        self._transport = transport

    def enqueue(self, uow: UnitOfWork, *, recipient: str, subject: str, body: str) -> OutboundMail:
        """Write a letter in the caller's transaction; it leaves once that has committed."""
        mail = OutboundMail(
            id=uuid4(),
            recipient=recipient,
            # Names that people chose stand in subjects; a line break there would end the header.
            subject=" ".join(subject.split())[:_SUBJECT_LENGTH],
            body=body,
            state=MailState.WAITING,
            attempts=0,
            created_at=uow.now,
            next_attempt_at=uow.now,
        )
        uow.session.add(mail)
        uow.ring(TASK, mail.id)
        return mail

    def enqueue_letter(
        self, uow: UnitOfWork, letter: str, *, recipient: str, locale: str, **values: object
    ) -> OutboundMail:
        """Write a letter of the catalogue (locales/*/letters.yml) in the recipient's language."""
        return self.enqueue(
            uow,
            recipient=recipient,
            subject=TEXTS.text(f"letters.{letter}.subject", locale, **values),
            body=TEXTS.text(f"letters.{letter}.body", locale, **values),
        )

    async def send(self, mail_id: UUID) -> None:
        """Try to send one letter; does nothing when it is sent, dead, or in another worker's hands."""
        claimed = await self._claim(mail_id)
        if claimed is None:
            return
        letter, attempt = claimed
        try:
            await self._transport.send(letter)
        except MailNotSent as error:
            await self._settle(mail_id, attempt, error)
        else:
            await self._settle(mail_id, attempt, None)

    async def sweep(self) -> None:
        """Ring again for letters whose time has come: retries, lost rings, and workers that died holding one."""
        async with self._units(_SCOPE) as uow:
            due = await uow.session.scalars(
                select(OutboundMail.id)
                .where(OutboundMail.state == MailState.WAITING, OutboundMail.next_attempt_at <= uow.now)
                .order_by(OutboundMail.next_attempt_at)
                .limit(_SWEEP_LIMIT)
            )
            for mail_id in due:
                uow.ring(TASK, mail_id)

    async def _claim(self, mail_id: UUID) -> tuple[Letter, int] | None:
        async with self._units(_SCOPE) as uow:
            mail = await uow.session.scalar(
                select(OutboundMail)
                .where(
                    OutboundMail.id == mail_id,
                    OutboundMail.state == MailState.WAITING,
                    # A letter nobody has tried yet is due even if this machine's clock is behind the writer's.
                    or_(OutboundMail.next_attempt_at <= uow.now, OutboundMail.attempts == 0),
                )
                .with_for_update(skip_locked=True)
            )
            if mail is None or not mail.claim(now=uow.now, lease=_LEASE):
                return None
            letter = Letter(
                id=mail.id,
                recipient=mail.recipient,
                subject=mail.subject,
                body=mail.body,
                written_at=mail.created_at,
            )
            return letter, mail.attempts

    async def _settle(self, mail_id: UUID, attempt: int, error: MailNotSent | None) -> None:
        async with self._units(_SCOPE) as uow:
            mail = await uow.session.scalar(
                select(OutboundMail)
                .where(OutboundMail.id == mail_id, OutboundMail.state == MailState.WAITING)
                .with_for_update()
            )
            if mail is None:
                return
            if error is None:
                mail.mark_sent(now=uow.now)
            # The attempt is the fence: the failure of a worker that outlived its lease decides nothing any more.
            elif mail.attempts == attempt:
                wait = timedelta(seconds=full_jitter_s(attempt, base_s=120.0, cap_s=7200.0))
                mail.mark_failed(str(error), retry_at=uow.now + wait, permanent=error.permanent)
                logger.warning("letter not sent", recipient=mail.recipient, attempt=attempt, state=mail.state.value)
