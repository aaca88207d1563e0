"""The post: what goes wrong on a code's way, and by which road it goes on."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from models.messengers import MessageState, MessengerContact, MessengerMessage
from services.phones.post import TASK
from tests.fakes.messenger_http import Fault
from tests.support.identity import PLATFORM
from tests.support.phones import World

# The cluster has the same database and the same code here, and nothing of it in Redis.
pytestmark = pytest.mark.embedded


async def bound(world: World, phone: str) -> int:
    """Somebody whose Telegram chat is known to be theirs."""
    user = world.telegram.person(phone)
    await world.update("telegram", world.telegram.write(user, "/start"))
    await world.update("telegram", world.telegram.share_own_contact(user))
    return user


async def only(world: World, phone: str) -> MessengerMessage:
    (message,) = await world.messages(phone)
    return message


async def test_a_known_chat_is_preferred_to_the_fee(world: World) -> None:
    phone = world.phone()
    user = await bound(world, phone)
    await world.request(phone)
    await world.deliver()

    assert world.gateway.sent == []
    assert world.telegram.messages[-1]["chat_id"] == str(user)
    assert (await only(world, phone)).sender == "telegram_bot"


async def test_a_closed_chat_is_forgotten_and_the_gateway_brings_the_code(world: World) -> None:
    phone = world.phone()
    user = await bound(world, phone)
    world.telegram.block(user)
    await world.request(phone)
    await world.deliver()

    (sent,) = world.gateway.sent
    await world.sign_in(phone, sent["code"])
    message = await only(world, phone)
    assert (message.state, message.sender, message.address) == (MessageState.SENT, "telegram_gateway", None)
    assert await world.identity.rows(select(MessengerContact).where(MessengerContact.phone == phone)) == []


async def test_a_number_without_an_account_is_given_up(world: World) -> None:
    phone = world.phone()
    world.gateway.accounts.discard(phone)
    await world.request(phone)
    await world.deliver()

    message = await only(world, phone)
    assert (message.state, message.last_error, message.sealed_code) == (MessageState.DEAD, "no_account", "")


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault(status=502), "unavailable"), (Fault(status=429, headers={"Retry-After": "20"}), "busy")],
    ids=["broken", "busy"],
)
async def test_a_messenger_that_is_away_is_asked_again(world: World, fault: Fault, error: str) -> None:
    phone = world.phone()
    world.gateway.faults.append(fault)
    await world.request(phone)
    await world.deliver()
    waiting = await only(world, phone)
    assert (waiting.state, waiting.last_error, waiting.attempts) == (MessageState.WAITING, error, 1)
    await world.identity.phones.post.send(waiting.id)
    assert world.gateway.sent == [], "its time has not come"

    world.identity.clock.offset += timedelta(seconds=90)
    await world.identity.phones.post.sweep()
    assert (TASK, waiting.id) in [(task.name, task.row_id) for task in world.identity.ears.tasks[1:]]
    await world.deliver()

    assert len(world.gateway.sent) == 1
    assert (await only(world, phone)).state is MessageState.SENT


async def test_a_refused_account_is_not_asked_again(world: World) -> None:
    phone = world.phone()
    world.gateway.refusals["checkSendAbility"] = "ACCESS_TOKEN_INVALID"
    await world.request(phone)
    await world.deliver()

    message = await only(world, phone)
    assert (message.state, message.last_error, message.sealed_code) == (MessageState.DEAD, "refused", "")


async def test_a_code_that_has_grown_old_is_not_sent(world: World) -> None:
    phone = world.phone()
    await world.request(phone)
    world.identity.clock.offset += timedelta(seconds=301)
    await world.deliver()

    assert world.gateway.sent == []
    assert (await only(world, phone)).state is MessageState.DEAD


async def test_a_code_that_was_replaced_is_not_sent(world: World) -> None:
    phone = world.phone()
    await world.request(phone)
    await world.request(phone)
    await world.deliver()

    assert len(world.gateway.sent) == 1
    assert [message.state for message in await world.messages(phone)] == [MessageState.DEAD, MessageState.SENT]
    await world.sign_in(phone, world.gateway.sent[0]["code"])


async def test_what_cannot_be_sent_any_more_is_given_up(world: World) -> None:
    switched_off, unreadable = world.phone(), world.phone()
    await world.request(switched_off)
    await world.request(unreadable)
    async with world.identity.units(PLATFORM) as uow:
        for phone, values in ((switched_off, {"sender": "pigeon"}), (unreadable, {"sealed_code": "bm9uc2Vuc2U="})):
            await uow.session.execute(update(MessengerMessage).where(MessengerMessage.phone == phone).values(values))
    await world.deliver()
    await world.identity.phones.post.send(uuid4())

    assert [(await only(world, phone)).last_error for phone in (switched_off, unreadable)] == [
        "no sender",
        "unreadable",
    ]
    assert world.gateway.sent == []
