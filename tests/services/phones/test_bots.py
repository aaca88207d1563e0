"""Bots: a link opens the chat, the chat shows the phone, the code goes into the chat and nowhere else."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from core.phones import mask_phone
from models.messengers import MessengerContact, MessengerLink, MessengerMessage
from models.phones import PhoneCode
from providers.messengers import UpdateNotProven
from services.phones.errors import MessengerUnknown
from services.phones.post import TASK
from tests.fakes.messenger_http import Obj
from tests.support.identity import PLATFORM
from tests.support.phones import HEADERS, World, new_phone

# The cluster has the same database and the same code here, and nothing of it in Redis.
pytestmark = pytest.mark.embedded

MESSENGERS = ["telegram", "max"]


def fake_of(world: World, messenger: str) -> Any:
    return world.telegram if messenger == "telegram" else world.max


def stop_of(world: World, messenger: str) -> Callable[[int], Obj]:
    return world.telegram.block if messenger == "telegram" else world.max.stop


def texts(world: World, messenger: str) -> list[str]:
    return [message["text"] for message in fake_of(world, messenger).messages]


async def bind(world: World, messenger: str, phone: str) -> int:
    """Somebody opens the bot by a link for their phone and shows it; returns their id there."""
    link = (await world.request(phone, channel=messenger)).start_link
    assert link is not None
    fake = fake_of(world, messenger)
    user: int = fake.person(phone)
    await world.update(messenger, fake.open_link(user, link))
    await world.update(messenger, fake.share_own_contact(user))
    return user


async def contact_of(world: World, phone: str) -> MessengerContact | None:
    rows = await world.identity.rows(select(MessengerContact).where(MessengerContact.phone == phone))
    return rows[0] if rows else None


@pytest.mark.parametrize("messenger", MESSENGERS)
async def test_the_code_goes_into_the_chat_that_showed_the_phone(bots_alone: World, messenger: str) -> None:
    world, phone = bots_alone, new_phone()

    user = await bind(world, messenger, phone)

    asked, answered = texts(world, messenger)
    assert "Поделитесь номером" in asked
    code = answered[:6]
    assert answered == f"{code} - ваш код для входа. Он действует 5 минут. Никому его не сообщайте."
    contact = await contact_of(world, phone)
    assert contact is not None
    assert (contact.messenger, contact.address) == (messenger, str(user))
    assert await world.audited("messenger.bound", mask_phone(phone))
    await world.sign_in(phone, code)
    # From now on nothing but asking is needed.
    await world.request(phone)
    await world.deliver()
    await world.sign_in(phone, texts(world, messenger)[-1][:6])


async def test_before_the_phone_is_shown_there_is_no_code_at_all(bots_alone: World) -> None:
    world, phone = bots_alone, new_phone()
    requested = await world.request(phone)
    await world.deliver()

    assert requested.start_link is not None
    assert await world.identity.rows(select(PhoneCode).where(PhoneCode.identifier == phone)) == []
    assert world.telegram.messages == world.max.messages == []


async def test_a_link_for_another_phone_brings_no_code(bots_alone: World) -> None:
    world, victim, attacker = bots_alone, new_phone(), new_phone()
    link = (await world.request(victim)).start_link
    assert link is not None
    user = world.telegram.person(attacker)
    await world.update("telegram", world.telegram.open_link(user, link))
    await world.update("telegram", world.telegram.share_own_contact(user))

    assert "запрошен для другого" in texts(world, "telegram")[-1]
    assert await contact_of(world, victim) is None
    assert (await contact_of(world, attacker)) is not None
    for phone in (victim, attacker):
        assert await world.identity.rows(select(PhoneCode).where(PhoneCode.identifier == phone)) == []


async def test_a_card_from_the_address_book_binds_nothing(bots_alone: World) -> None:
    world, victim = bots_alone, new_phone()
    link = (await world.request(victim)).start_link
    assert link is not None
    user = world.telegram.person(new_phone())
    await world.update("telegram", world.telegram.open_link(user, link))
    for owner in (None, user + 1):
        await world.update("telegram", world.telegram.share_card(user, phone=victim, owner=owner))

    assert "не ваш контакт" in texts(world, "telegram")[-1]
    assert world.telegram.messages[-1]["reply_markup"]["keyboard"]
    assert await contact_of(world, victim) is None
    assert await world.identity.rows(select(PhoneCode).where(PhoneCode.identifier == victim)) == []


async def test_an_update_delivered_again_has_one_effect(bots_alone: World) -> None:
    world, phone = bots_alone, new_phone()
    link = (await world.request(phone)).start_link
    assert link is not None
    user = world.telegram.person(phone)
    await world.update("telegram", world.telegram.open_link(user, link))
    shared = json.dumps(world.telegram.share_own_contact(user)).encode()

    async def receive() -> None:
        async with world.identity.units(PLATFORM) as uow:
            await world.identity.phones.bots.receive(uow, "telegram", body=shared, headers=HEADERS["telegram"])

    rung = len(world.identity.ears.tasks)
    await asyncio.gather(*(receive() for _ in range(5)))
    await receive()

    assert [task.name for task in world.identity.ears.tasks[rung:]] == [TASK]
    assert len(await world.messages(phone)) == 1
    assert len(await world.identity.rows(select(MessengerContact).where(MessengerContact.phone == phone))) == 1


async def test_a_link_opens_one_chat_and_not_for_ever(bots_alone: World) -> None:
    world, phone = bots_alone, new_phone()
    link = (await world.request(phone)).start_link
    late = (await world.request(phone)).start_link
    assert link is not None
    assert late is not None
    first, second = world.telegram.person(phone), world.telegram.person(new_phone())
    await world.update("telegram", world.telegram.open_link(first, link))
    await world.update("telegram", world.telegram.open_link(second, link))
    world.identity.clock.offset += timedelta(minutes=16)
    await world.update("telegram", world.telegram.open_link(second, late))

    rows = await world.identity.rows(select(MessengerLink).where(MessengerLink.phone == phone))
    assert sorted((row.address or "", row.finished_at) for row in rows) == [("", None), (str(first), None)]
    # The chat is bound all the same, but the time for a code is over.
    await world.update("telegram", world.telegram.share_own_contact(first))
    assert "привязан к вашему номеру. Коды" in texts(world, "telegram")[-1]


async def test_one_phone_has_one_chat_and_the_newest_counts(bots_alone: World) -> None:
    world, phone = bots_alone, new_phone()
    old = await bind(world, "telegram", phone)
    new = world.telegram.person(phone)
    await world.update("telegram", world.telegram.write(new, "/start"))
    await world.update("telegram", world.telegram.share_own_contact(new))

    contact = await contact_of(world, phone)
    assert contact is not None
    assert contact.address == str(new) != str(old)


async def test_a_known_chat_gets_its_code_by_the_link_alone(bots_alone: World) -> None:
    world, phone = bots_alone, new_phone()
    user = await bind(world, "telegram", phone)
    link = (await world.request(phone)).start_link
    assert link is not None
    await world.update("telegram", world.telegram.open_link(user, link))

    assert "код для входа" in texts(world, "telegram")[-1]
    assert len(await world.messages(phone)) == 3
    links = await world.identity.rows(select(MessengerLink).where(MessengerLink.phone == phone))
    assert [row.finished_at is not None for row in links] == [True, True]


@pytest.mark.parametrize("messenger", MESSENGERS)
async def test_a_stopped_bot_forgets_the_chat(bots_alone: World, messenger: str) -> None:
    world, phone = bots_alone, new_phone()
    user = await bind(world, messenger, phone)
    await world.update(messenger, stop_of(world, messenger)(user))

    assert await contact_of(world, phone) is None
    assert await world.audited("messenger.unbound", mask_phone(phone))


async def test_a_bot_that_may_send_no_more_codes_says_so(bots_alone: World) -> None:
    world, phone = bots_alone, new_phone()
    user = await bind(world, "telegram", phone)
    link = (await world.request(phone)).start_link
    await world.request(phone)
    assert link is not None
    assert len(await world.messages(phone)) == 3
    await world.update("telegram", world.telegram.open_link(user, link))

    assert texts(world, "telegram")[-1] == "На этот номер отправлено слишком много кодов. Попробуйте позже."
    assert len(await world.messages(phone)) == 3


async def test_who_is_known_to_a_bot_waits_as_long_as_who_is_not(bots_alone: World) -> None:
    world, known, unknown = bots_alone, new_phone(), new_phone()
    await bind(world, "telegram", known)
    world.identity.clock.offset += timedelta(hours=1)

    counted = []
    for phone in (known, unknown):
        outcomes = await asyncio.gather(*(world.request(phone) for _ in range(5)), return_exceptions=True)
        counted.append(sum(isinstance(outcome, Exception) for outcome in outcomes))

    assert counted == [2, 2]


async def test_only_the_messenger_itself_is_believed(bots_alone: World) -> None:
    world = bots_alone
    update = world.telegram.write(world.telegram.person(new_phone()), "/start")
    for headers in ({"X-Telegram-Bot-Api-Secret-Token": "wrong"}, {"Host": "telegram.org"}, HEADERS["max"]):
        with pytest.raises(UpdateNotProven):
            await world.update("telegram", update, headers=headers)
    with pytest.raises(MessengerUnknown):
        await world.update("signal", update, headers=HEADERS["telegram"])
    address = str(update["message"]["chat"]["id"])
    assert await world.identity.rows(select(MessengerMessage).where(MessengerMessage.address == address)) == []
