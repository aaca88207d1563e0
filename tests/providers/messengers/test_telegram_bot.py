"""What is Telegram's own way: keyboards, commands, cards, groups."""

import json
from contextlib import aclosing

import pytest

from providers.messengers import BotEvent, BotStarted, BotStopped, ContactFault, ContactRefused, ContactShared
from providers.messengers.telegram_bot import TelegramBot
from tests.fakes.telegram_bot import TOKEN, USERNAME
from tests.providers.messengers.harness import NONCE, PHONE, SECRET, TelegramHarness, message


def read(telegram: TelegramHarness, update: object) -> tuple[BotEvent, ...]:
    headers = {"X-Telegram-Bot-Api-Secret-Token": SECRET}
    return telegram.sender().read_updates(body=json.dumps(update).encode(), headers=headers)


def test_the_link(telegram: TelegramHarness) -> None:
    assert telegram.sender().start_link(NONCE) == f"https://t.me/{USERNAME}?start={NONCE}"


async def test_what_is_written(telegram: TelegramHarness) -> None:
    person = telegram.person(PHONE)
    telegram.fake.write(person, "/start")
    async with aclosing(telegram.sender()) as bot:
        await bot.ask_for_contact(str(person), text="Покажите номер", button="Показать")
        sent = await bot.send(message(address=str(person)))

    assert {seen.path for seen in telegram.fake.requests} == {f"/bot{TOKEN}/sendMessage"}
    asked, code = telegram.fake.messages
    assert asked["reply_markup"] == {
        "keyboard": [[{"text": "Показать", "request_contact": True}]],
        "resize_keyboard": True,
        "one_time_keyboard": True,
    }
    assert code == {"chat_id": str(person), "text": message().text, "reply_markup": {"remove_keyboard": True}}
    assert sent.reference == "2"


async def test_the_webhook_asks_for_what_is_read(telegram: TelegramHarness) -> None:
    async with aclosing(telegram.sender()) as bot:
        await bot.set_webhook("https://api.example.org/webhook")

    assert telegram.fake.webhook == {
        "url": "https://api.example.org/webhook",
        "secret_token": SECRET,
        "allowed_updates": ["message", "my_chat_member"],
    }


@pytest.mark.parametrize(
    ("text", "nonce"),
    [
        ("/start", None),
        (f"/start {NONCE}", NONCE),
        ("/start a b", None),
        ("/start a\u00a0b", None),
        ("/start " + "a" * 65, None),
        ("/start \x00", None),
        ("/start ", None),
    ],
)
def test_the_command_to_start(telegram: TelegramHarness, text: str, nonce: str | None) -> None:
    (event,) = read(telegram, telegram.fake.write(telegram.person(PHONE), text))
    assert isinstance(event, BotStarted)
    assert event.nonce == nonce


@pytest.mark.parametrize("text", ["hello", "/stop", "/started", f" /start {NONCE}", NONCE, "042817"])
def test_other_words_are_no_business_of_ours(telegram: TelegramHarness, text: str) -> None:
    assert read(telegram, telegram.fake.write(telegram.person(PHONE), text)) == ()


@pytest.mark.parametrize(("code", "locale"), [("ru", "ru"), ("pt-BR", "pt"), (None, None), ("", None), ("1", None)])
def test_the_language(telegram: TelegramHarness, code: str | None, locale: str | None) -> None:
    (event,) = read(telegram, telegram.fake.write(telegram.person(PHONE), "/start", language_code=code))
    assert event.locale == locale


def test_a_card_that_is_nobodys_proves_nothing(telegram: TelegramHarness) -> None:
    person = telegram.person("+79990000001")
    (event,) = read(telegram, telegram.fake.share_card(person, phone=PHONE, owner=None))
    assert isinstance(event, ContactRefused)
    assert event.fault is ContactFault.NOT_OWN


@pytest.mark.parametrize("written", ["79991234567", "+79991234567", "+7 999 123-45-67"])
def test_the_number_may_have_a_plus_or_not(telegram: TelegramHarness, written: str) -> None:
    person = telegram.person(PHONE)
    (event,) = read(telegram, telegram.fake.share_card(person, phone=written, owner=person))
    assert isinstance(event, ContactShared)
    assert event.phone == PHONE


@pytest.mark.parametrize("written", ["", "+", "89991234567", "375", "79991234567\x00", "٧٩٩٩١٢٣٤٥٦٧", "7" * 5000])
def test_an_own_number_that_is_none_is_refused(telegram: TelegramHarness, written: str) -> None:
    person = telegram.person(PHONE)
    (event,) = read(telegram, telegram.fake.share_card(person, phone=written, owner=person))
    assert isinstance(event, ContactRefused)
    assert event.fault is ContactFault.NOT_A_PHONE


@pytest.mark.parametrize("kind", ["group", "supergroup", "channel", "sender"])
def test_what_happens_in_groups_is_no_business_of_ours(telegram: TelegramHarness, kind: str) -> None:
    person = telegram.person(PHONE)
    updates = [
        telegram.fake.share_card(person, phone=PHONE, owner=person),
        telegram.fake.write(person, f"/start {NONCE}"),
        telegram.fake.block(person),
    ]
    for update in updates:
        part = update.get("message") or update["my_chat_member"]
        part["chat"] = {"id": -100500, "type": kind}
        assert read(telegram, update) == ()


def test_a_message_of_nobody_is_no_business_of_ours(telegram: TelegramHarness) -> None:
    update = telegram.fake.write(telegram.person(PHONE), "/start")
    del update["message"]["from"]
    assert read(telegram, update) == ()


def test_only_leaving_is_stopping(telegram: TelegramHarness) -> None:
    update = telegram.fake.block(telegram.person(PHONE))
    assert isinstance(read(telegram, update)[0], BotStopped)
    update["my_chat_member"]["new_chat_member"]["status"] = "member"
    assert read(telegram, update) == ()


@pytest.mark.parametrize("secret", ["", "short", "x" * 257, "with spaces in between", "с-кириллицей-внутри-строки"])
def test_a_secret_that_telegram_would_not_take_is_refused_at_start(secret: str) -> None:
    with pytest.raises(ValueError, match="webhook secret"):
        TelegramBot(token=TOKEN, username=USERNAME, webhook_secret=secret)


@pytest.mark.parametrize("username", ["", "@erpmax", "erp/max", "бот"])
def test_a_name_that_is_none_is_refused_at_start(username: str) -> None:
    with pytest.raises(ValueError, match="name"):
        TelegramBot(token=TOKEN, username=username, webhook_secret=SECRET)
