"""What every bot does: people open it by a link of ours, show their own number, and receive codes from then on."""

import json
from contextlib import aclosing

import pytest

from core.errors import ErrorKind
from providers.messengers import (
    BotStarted,
    BotStopped,
    ContactFault,
    ContactRefused,
    ContactShared,
    MessengerBot,
    MessengerUnavailable,
    RecipientUnreachable,
    UnreachableBecause,
    UpdateNotProven,
    UpdateUnreadable,
)
from tests.providers.messengers.harness import NONCE, PHONE, SECRET, BotHarness, message, webhook_of

HTTPS = "https://api.example.org/webhook"


async def test_the_whole_road_from_a_link_to_a_code(bot_harness: BotHarness) -> None:
    person = bot_harness.person(PHONE)
    async with aclosing(bot_harness.sender()) as bot, webhook_of(bot) as webhook:
        await bot.set_webhook(HTTPS)

        assert await bot_harness.deliver(bot_harness.open_link(person, bot.start_link(NONCE)), webhook.url) == 200
        started = webhook.events[0]
        assert isinstance(started, BotStarted)
        assert (started.nonce, started.locale) == (NONCE, "ru")

        await bot.ask_for_contact(started.address, text="Покажите свой номер", button="Показать номер")
        assert await bot_harness.deliver(bot_harness.share_own_contact(person), webhook.url) == 200
        shared = webhook.events[1]
        assert isinstance(shared, ContactShared)
        assert (shared.phone, shared.address) == (PHONE, started.address)

        await bot.say(shared.address, "Спасибо")
        await bot.send(message(address=shared.address))

    assert bot_harness.codes() == ["Покажите", "Спасибо", "042817"]
    assert len(webhook.events) == 2


async def test_a_contact_of_somebody_else_is_refused(bot_harness: BotHarness) -> None:
    """The attack that this road must bear: show the card of the one whose account is wanted."""
    thief, victim = bot_harness.person("+79990000001"), bot_harness.person(PHONE)
    async with aclosing(bot_harness.sender()) as bot, webhook_of(bot) as webhook:
        await bot.set_webhook(HTTPS)
        assert await bot_harness.deliver(bot_harness.share_contact_of(thief, victim, PHONE), webhook.url) == 200

    (event,) = webhook.events
    assert isinstance(event, ContactRefused)
    assert (event.fault, event.address) == (ContactFault.NOT_OWN, str(thief))


async def test_an_own_contact_with_a_number_that_is_no_phone_is_refused(bot_harness: BotHarness) -> None:
    # Telegram sells such numbers to people without a telephone.
    person = bot_harness.person("+88801234567")
    async with aclosing(bot_harness.sender()) as bot:
        bot_harness.open_link(person, bot.start_link(NONCE))
        await bot.ask_for_contact(str(person), text="Покажите свой номер", button="Показать")
        update = bot_harness.share_own_contact(person)
        (event,) = read(bot, update)

    assert isinstance(event, ContactRefused)
    assert event.fault is ContactFault.NOT_A_PHONE


async def test_the_same_update_has_the_same_id_and_another_has_another(bot_harness: BotHarness) -> None:
    person = bot_harness.person(PHONE)
    async with aclosing(bot_harness.sender()) as bot:
        opened = bot_harness.open_link(person, bot.start_link(NONCE))
        await bot.ask_for_contact(str(person), text="Покажите свой номер", button="Показать")
        updates = [opened, bot_harness.share_own_contact(person), bot_harness.share_own_contact(person)]
        updates.append(bot_harness.stop(person))
        ids = [event.update_id for update in updates for event in read(bot, update)]
        again = [event.update_id for update in updates for event in read(bot, update)]

    assert ids == again
    assert len(set(ids)) == 4
    assert all(0 < len(update_id) <= 255 for update_id in ids)


async def test_somebody_who_stops_the_bot_is_told_and_not_reached(bot_harness: BotHarness) -> None:
    person = bot_harness.person(PHONE)
    async with aclosing(bot_harness.sender()) as bot:
        bot_harness.open_link(person, bot.start_link(NONCE))
        (event,) = read(bot, bot_harness.stop(person))
        assert isinstance(event, BotStopped)
        assert event.address == str(person)

        with pytest.raises(RecipientUnreachable) as refusal:
            await bot.send(message(address=str(person)))
        assert refusal.value.reason is UnreachableBecause.BLOCKED

        bot_harness.open_link(person, bot.start_link(NONCE))
        await bot.send(message(address=str(person)))


@pytest.mark.parametrize("address", ["known", "unknown", None])
async def test_who_has_not_opened_the_bot_is_not_reached(bot_harness: BotHarness, address: str | None) -> None:
    person = bot_harness.person(PHONE)
    where = {"known": str(person), "unknown": "999", None: None}[address]
    async with aclosing(bot_harness.sender()) as bot:
        with pytest.raises(RecipientUnreachable) as refusal:
            await bot.send(message(address=where))

    assert refusal.value.reason is UnreachableBecause.NOT_STARTED
    assert (refusal.value.kind, refusal.value.code) == (ErrorKind.BAD_REQUEST, "RECIPIENT_UNREACHABLE")


@pytest.mark.parametrize("nonce", ["", "a b", "a&b", "ж", "a" * 65, "a\n", "../x"])
def test_a_nonce_that_links_cannot_carry_is_a_bug_of_ours(bot_harness: BotHarness, nonce: str) -> None:
    with pytest.raises(ValueError, match="nonce"):
        bot_harness.sender().start_link(nonce)


class TestWebhook:
    """Who may speak to it, and what it makes of nonsense."""

    async def test_only_the_messenger_is_heard(self, bot_harness: BotHarness) -> None:
        person = bot_harness.person(PHONE)
        async with aclosing(bot_harness.sender()) as bot, webhook_of(bot) as webhook:
            update = bot_harness.open_link(person, bot.start_link(NONCE))
            for secret in ("", SECRET[:-1], SECRET + "x", SECRET.upper(), "another-secret-of-the-test"):
                assert await bot_harness.deliver(update, webhook.url, secret=secret) == 401
            assert webhook.events == []
            assert await bot_harness.deliver(update, webhook.url, secret=SECRET) == 200

        assert len(webhook.events) == 1

    def test_a_call_without_the_header_is_refused_before_it_is_read(self, bot_harness: BotHarness) -> None:
        bot = bot_harness.sender()
        for headers in ({}, {"Authorization": SECRET}, {HEADERS[bot.name]: "ё"}, {HEADERS[bot.name]: "\udcff"}):
            with pytest.raises(UpdateNotProven):
                bot.read_updates(body=b"nonsense", headers=headers)

    def test_the_name_of_the_header_may_be_written_otherwise(self, bot_harness: BotHarness) -> None:
        bot = bot_harness.sender()
        for name in (HEADERS[bot.name], HEADERS[bot.name].lower(), HEADERS[bot.name].upper()):
            assert bot.read_updates(body=UNINTERESTING[bot.name], headers={name: SECRET}) == ()

    @pytest.mark.parametrize(
        "body",
        [b"", b"null", b"5", b'"x"', b"[5]", b"{}", b"{", b"\xff\xfe", b'{"update_id": "1"}', b'{"update_type": 5}'],
    )
    async def test_a_body_that_is_no_update_is_refused(self, bot_harness: BotHarness, body: bytes) -> None:
        async with aclosing(bot_harness.sender()) as bot, webhook_of(bot) as webhook:
            assert await bot_harness.deliver(body, webhook.url, secret=SECRET) == 400

    def test_deep_nonsense_is_refused(self, bot_harness: BotHarness) -> None:
        bot = bot_harness.sender()
        with pytest.raises(UpdateUnreadable):
            bot.read_updates(body=b'{"a":' * 50_000, headers={HEADERS[bot.name]: SECRET})

    def test_a_refusal_does_not_repeat_what_was_sent(self, bot_harness: BotHarness) -> None:
        bot = bot_harness.sender()
        body = json.dumps({"update_id": PHONE, "update_type": [PHONE], "timestamp": PHONE}).encode()
        with pytest.raises(UpdateUnreadable) as refusal:
            bot.read_updates(body=body, headers={HEADERS[bot.name]: SECRET})
        assert PHONE not in str(refusal.value)
        assert refusal.value.__cause__ is None

    def test_events_do_not_show_people_in_logs(self, bot_harness: BotHarness) -> None:
        shared = ContactShared(update_id="1", address="54321", locale=None, phone=PHONE)
        started = BotStarted(update_id="1", address="54321", locale=None, nonce=NONCE)
        assert all(text not in repr((shared, started)) for text in (PHONE, "54321", NONCE))

    async def test_an_address_that_is_not_https_is_refused(self, bot_harness: BotHarness) -> None:
        async with aclosing(bot_harness.sender()) as bot:
            with pytest.raises(MessengerUnavailable):
                await bot.set_webhook("http://api.example.org/webhook")


HEADERS = {"telegram_bot": "X-Telegram-Bot-Api-Secret-Token", "max_bot": "X-Max-Bot-Api-Secret"}
UNINTERESTING = {
    "telegram_bot": b'{"update_id": 1, "poll": {"id": "5"}}',
    "max_bot": b'{"update_type": "dialog_muted", "timestamp": 1, "chat_id": 2, "user": {"user_id": 3}}',
}


def read(bot: MessengerBot, update: object):
    return bot.read_updates(body=json.dumps(update).encode(), headers={HEADERS[bot.name]: SECRET})
