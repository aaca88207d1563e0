"""Letters: sent at least once, by one worker at a time, until they are sent or given up."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from models.mail import MAX_ATTEMPTS, MailState, OutboundMail
from providers.mail import Letter, MailNotSent
from services.mail import MailService
from services.unit_of_work import PlatformScope, UnitOfWorkFactory, guard_tenants
from tests.support.clock import MovableClock
from tests.support.identity import FarClock
from tests.support.spine import Ears

PLATFORM = PlatformScope("a test looks at everything")


class Trouble(Exception):
    pass


@dataclass(slots=True)
class Postman:
    """A transport that remembers its letters and does to each what a test asks for."""

    taken: list[Letter] = field(default_factory=list)
    act: Callable[[Letter], None] = lambda letter: None
    pause_s: float = 0.0

    async def send(self, letter: Letter) -> None:
        self.taken.append(letter)
        await asyncio.sleep(self.pause_s)
        self.act(letter)


@dataclass(slots=True)
class Office:
    """The service under test and what it was given."""

    units: UnitOfWorkFactory
    clock: MovableClock
    ears: Ears
    postman: Postman
    mail: MailService

    async def write(self, subject: str = "Hello") -> UUID:
        async with self.units(PLATFORM) as uow:
            return self.mail.enqueue(
                uow, recipient=f"{uuid4().hex}@example.org", subject=subject, body="a secret token"
            ).id

    async def stored(self, mail_id: UUID) -> OutboundMail:
        async with self.units(PLATFORM) as uow:
            return (await uow.session.scalars(select(OutboundMail).where(OutboundMail.id == mail_id))).one()

    async def swept(self) -> list[UUID]:
        """Return the letters that a sweep rings for."""
        self.ears.tasks.clear()
        await self.mail.sweep()
        assert {task.name for task in self.ears.tasks} <= {"mail.send"}
        return [task.row_id for task in self.ears.tasks]


@pytest.fixture
async def office(engine: AsyncEngine) -> Office:
    ears, clock, postman = Ears(), FarClock(), Postman()
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, autoflush=False)
    guard_tenants(sessions)
    units = UnitOfWorkFactory(sessions, clock=clock, bell=ears, ringer=ears)
    async with units(PLATFORM) as uow:
        # A sweep rings for those that have waited longest, and letters of other tests that nobody sends wait for ever.
        await uow.session.execute(
            update(OutboundMail)
            .where(OutboundMail.state == MailState.WAITING)
            .values(next_attempt_at=uow.now + timedelta(days=999))
        )
    return Office(units, clock, ears, postman, MailService(units=units, transport=postman))


def refuse(*, permanent: bool) -> Callable[[Letter], None]:
    def act(_: Letter) -> None:
        raise MailNotSent("550 no such user" if permanent else "421 try later", permanent=permanent)

    return act


async def test_a_letter_is_written_with_its_fact_and_rings(office: Office) -> None:
    mail_id = await office.write("A subject\r\nBcc: somebody@example.org " + "x" * 300)

    assert [(task.name, task.row_id) for task in office.ears.tasks] == [("mail.send", mail_id)]
    stored = await office.stored(mail_id)
    assert (stored.state, stored.attempts) == (MailState.WAITING, 0)
    assert stored.subject.startswith("A subject Bcc: somebody@example.org xxx")
    assert len(stored.subject) == 255


async def test_a_rolled_back_letter_was_never_written(office: Office) -> None:
    written = []

    async def write_and_fail() -> None:
        async with office.units(PLATFORM) as uow:
            written.append(office.mail.enqueue(uow, recipient="x@example.org", subject="x", body="x"))
            raise Trouble

    with pytest.raises(Trouble):
        await write_and_fail()

    assert office.ears.tasks == []
    await office.mail.send(written[0].id)
    assert office.postman.taken == []


async def test_a_sent_letter_is_forgotten(office: Office) -> None:
    mail_id = await office.write()

    await office.mail.send(mail_id)
    await office.mail.send(mail_id)

    (letter,) = office.postman.taken
    stored = await office.stored(mail_id)
    assert (letter.id, letter.recipient, letter.body) == (mail_id, stored.recipient, "a secret token")
    assert (stored.state, stored.body, stored.attempts) == (MailState.SENT, "", 1)
    assert stored.sent_at is not None


async def test_many_workers_send_a_letter_once(office: Office) -> None:
    mail_id = await office.write()
    office.postman.pause_s = 0.1

    await asyncio.gather(*(office.mail.send(mail_id) for _ in range(5)))

    assert [letter.id for letter in office.postman.taken] == [mail_id]


async def test_a_letter_is_tried_again_later_and_at_last_given_up(office: Office) -> None:
    mail_id = await office.write()
    office.postman.act = refuse(permanent=False)

    waits = []
    stored = await office.stored(mail_id)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        await office.mail.send(mail_id)
        stored = await office.stored(mail_id)
        assert stored.attempts == attempt
        waits.append(stored.next_attempt_at - office.clock.now())
        await office.mail.send(mail_id)
        assert len(office.postman.taken) == attempt, "it must wait"
        office.clock.offset += timedelta(hours=3)

    assert (stored.state, stored.body, stored.last_error) == (MailState.DEAD, "", "421 try later")
    assert all(timedelta(seconds=50) < wait <= timedelta(hours=2) for wait in waits)
    assert max(waits[4:]) > timedelta(minutes=4), "waits must grow"
    await office.mail.send(mail_id)
    assert len(office.postman.taken) == MAX_ATTEMPTS == 8


async def test_a_letter_refused_for_good_is_not_tried_again(office: Office) -> None:
    mail_id = await office.write()
    office.postman.act = refuse(permanent=True)

    await office.mail.send(mail_id)

    stored = await office.stored(mail_id)
    assert (stored.state, stored.body, stored.last_error) == (MailState.DEAD, "", "550 no such user")


async def test_a_worker_that_died_holding_a_letter_is_replaced(office: Office) -> None:
    mail_id = await office.write()

    def die(_: Letter) -> None:
        raise Trouble

    office.postman.act = die
    with pytest.raises(Trouble):
        await office.mail.send(mail_id)
    office.postman.act = lambda letter: None
    assert mail_id not in await office.swept(), "its lease still holds"

    office.clock.offset = timedelta(minutes=3)
    assert mail_id in await office.swept()
    await office.mail.send(mail_id)
    assert (await office.stored(mail_id)).state is MailState.SENT


async def test_a_letter_that_kills_its_workers_is_given_up(office: Office) -> None:
    mail_id = await office.write()

    def die(_: Letter) -> None:
        raise Trouble

    office.postman.act = die
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Trouble):
            await office.mail.send(mail_id)
        office.clock.offset += timedelta(minutes=3)

    await office.mail.send(mail_id)
    stored = await office.stored(mail_id)
    assert (stored.state, stored.body) == (MailState.DEAD, "")
    assert len(office.postman.taken) == MAX_ATTEMPTS


async def outlive_the_lease(office: Office, mail_id: UUID, outcome: Callable[[Letter], None]) -> None:
    """Let one worker come to `outcome` only after another has tried, and failed, in its place."""
    late = asyncio.Event()

    class Slow:
        async def send(self, letter: Letter) -> None:
            await late.wait()
            outcome(letter)

    slow = MailService(units=office.units, transport=Slow())
    outlived = asyncio.create_task(slow.send(mail_id))
    while (await office.stored(mail_id)).attempts == 0:
        await asyncio.sleep(0.01)
    office.clock.offset += timedelta(minutes=3)
    office.postman.act = refuse(permanent=False)
    await office.mail.send(mail_id)
    late.set()
    await outlived


async def test_a_failure_after_the_lease_decides_nothing(office: Office) -> None:
    mail_id = await office.write()

    await outlive_the_lease(office, mail_id, refuse(permanent=True))

    stored = await office.stored(mail_id)
    assert (stored.state, stored.attempts, stored.last_error) == (MailState.WAITING, 2, "421 try later")


async def test_a_success_after_the_lease_still_counts(office: Office) -> None:
    mail_id = await office.write()

    await outlive_the_lease(office, mail_id, lambda letter: None)

    stored = await office.stored(mail_id)
    assert (stored.state, stored.body, stored.last_error) == (MailState.SENT, "", None), "or it would be sent again"


async def test_a_failure_after_a_success_is_forgotten(office: Office) -> None:
    mail_id = await office.write()

    class Overtaken:
        async def send(self, letter: Letter) -> None:
            office.clock.offset += timedelta(minutes=3)
            await office.mail.send(letter.id)
            raise MailNotSent("cut off", permanent=True)

    await MailService(units=office.units, transport=Overtaken()).send(mail_id)

    stored = await office.stored(mail_id)
    assert (stored.state, stored.attempts, stored.last_error) == (MailState.SENT, 2, None)


async def test_a_sweep_rings_for_what_is_due(office: Office) -> None:
    due, sent = await office.write(), await office.write()
    await office.mail.send(sent)

    swept = await office.swept()

    assert due in swept
    assert sent not in swept


async def test_a_catalogue_letter_is_in_the_readers_language(office: Office) -> None:
    async with office.units(PLATFORM) as uow:
        mail = office.mail.enqueue_letter(
            uow, "password_changed", recipient="x@example.org", locale="ru", full_name="Иван", email="x@example.org"
        )

    assert mail.subject == "Ваш пароль изменён"
    assert "Здравствуйте, Иван!" in mail.body
