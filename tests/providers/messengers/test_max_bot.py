"""What is MAX's own way: signed cards, dialogs, its token in the header, its certificates."""

import base64
import json
import ssl
from contextlib import aclosing
from pathlib import Path

import pytest

from providers.messengers import (
    BotEvent,
    BotStarted,
    BotStopped,
    ContactFault,
    ContactRefused,
    ContactShared,
    UpdateUnreadable,
)
from providers.messengers.max_bot import MaxBot
from tests.fakes.max_bot import TOKEN, USERNAME
from tests.providers.messengers.harness import NONCE, PHONE, SECRET, MaxHarness, message


def read(harness: MaxHarness, update: object) -> tuple[BotEvent, ...]:
    return harness.sender().read_updates(body=json.dumps(update).encode(), headers={"X-Max-Bot-Api-Secret": SECRET})


def test_the_link(max_messenger: MaxHarness) -> None:
    assert max_messenger.sender().start_link(NONCE) == f"https://max.ru/{USERNAME}?start={NONCE}"


async def test_what_is_written(max_messenger: MaxHarness) -> None:
    async with aclosing(max_messenger.sender()) as bot:
        known = await max_messenger.known(bot)
        assert known.address is not None
        await bot.ask_for_contact(known.address, text="Покажите номер", button="Показать")
        sent = await bot.send(known)

    assert {seen.headers["Authorization"] for seen in max_messenger.fake.requests} == {TOKEN}
    assert {(seen.path, tuple(seen.query.items())) for seen in max_messenger.fake.requests} == {
        ("/messages", (("user_id", known.address),))
    }
    asked, code = max_messenger.fake.messages
    assert asked["attachments"] == [
        {
            "type": "inline_keyboard",
            "payload": {"buttons": [[{"type": "request_contact", "text": "Показать"}]]},
        }
    ]
    assert code == {"text": message().text, "user_id": int(known.address)}
    assert sent.reference.startswith("mid.")


async def test_the_subscription_asks_for_what_is_read(max_messenger: MaxHarness) -> None:
    async with aclosing(max_messenger.sender()) as bot:
        await bot.set_webhook("https://api.example.org/webhook")

    assert max_messenger.fake.subscription == {
        "url": "https://api.example.org/webhook",
        "update_types": ["bot_started", "bot_stopped", "dialog_removed", "message_created"],
        "secret": SECRET,
    }


class TestContacts:
    """A card counts if MAX signed it and it is the sender's own."""

    def test_a_signed_own_card_is_good(self, max_messenger: MaxHarness) -> None:
        fake = max_messenger.fake
        person = fake.person(PHONE)
        card = fake.card(PHONE)
        (event,) = read(max_messenger, fake.share_card(person, card=card, owner=person, signature=fake.sign(card)))
        assert isinstance(event, ContactShared)
        assert (event.phone, event.address, event.locale) == (PHONE, str(person), "ru")

    def test_the_forms_of_the_signature(self, max_messenger: MaxHarness) -> None:
        fake = max_messenger.fake
        person = fake.person(PHONE)
        card = fake.card(PHONE)
        signature = fake.sign(card)
        for form in (signature.upper(), base64.b64encode(bytes.fromhex(signature)).decode()):
            (event,) = read(max_messenger, fake.share_card(person, card=card, owner=person, signature=form))
            assert isinstance(event, ContactShared)

    def test_line_ends_that_come_escaped_are_signed_as_real_ones(self, max_messenger: MaxHarness) -> None:
        fake = max_messenger.fake
        person = fake.person(PHONE)
        card = fake.card(PHONE)
        escaped = card.replace("\r\n", "\\r\\n")
        (event,) = read(max_messenger, fake.share_card(person, card=escaped, owner=person, signature=fake.sign(card)))
        assert isinstance(event, ContactShared)
        assert event.phone == PHONE

    def test_anything_else_proves_nothing(self, max_messenger: MaxHarness) -> None:
        fake = max_messenger.fake
        thief, victim = fake.person("+79990000001"), fake.person(PHONE)
        own, foreign = fake.card("+79990000001"), fake.card(PHONE)
        forgeries = [
            fake.share_card(thief, card=foreign, owner=thief, signature=None),
            fake.share_card(thief, card=foreign, owner=thief, signature=""),
            fake.share_card(thief, card=foreign, owner=thief, signature=fake.sign(own)),
            fake.share_card(thief, card=foreign, owner=thief, signature=fake.sign(foreign, token="another")),
            fake.share_card(thief, card=foreign, owner=thief, signature=fake.sign("")),
            fake.share_card(thief, card=foreign, owner=thief, signature="ё" * 64),
            fake.share_card(thief, card=foreign, owner=victim, signature=fake.sign(foreign)),
            fake.share_card(thief, card=foreign, owner=None, signature=fake.sign(foreign)),
            fake.share_card(thief, card=own + foreign, owner=thief, signature=fake.sign(own)),
        ]
        for update in forgeries:
            (event,) = read(max_messenger, update)
            assert isinstance(event, ContactRefused)
            assert event.fault is ContactFault.NOT_OWN

    @pytest.mark.parametrize(
        "line",
        [
            "TEL;TYPE=cell:79991234567",
            "TEL:+79991234567",
            "tel;type=cell:+7 999 123-45-67;",
            "item1.TEL;TYPE=cell;PREF=1:79991234567",
        ],
    )
    def test_the_ways_to_write_the_number(self, max_messenger: MaxHarness, line: str) -> None:
        event = self.shared(max_messenger, f"BEGIN:VCARD\r\nX-TEL:1\r\n{line}\r\nFN:TEL:2\r\nEND:VCARD\r\n")
        assert isinstance(event, ContactShared)
        assert event.phone == PHONE

    @pytest.mark.parametrize("line", ["", "TEL;TYPE=cell:", "TEL", "TEL;TYPE=cell:abc", "X-TEL:79991234567"])
    def test_a_card_without_a_number_is_refused(self, max_messenger: MaxHarness, line: str) -> None:
        event = self.shared(max_messenger, f"BEGIN:VCARD\r\n{line}\r\nFN:79991234567\r\nEND:VCARD\r\n")
        assert isinstance(event, ContactRefused)
        assert event.fault is ContactFault.NOT_A_PHONE

    @pytest.mark.parametrize("payload", [None, 5, [], "card", {"vcf_info": 5}, {"max_info": {"user_id": "1"}}], ids=str)
    def test_a_contact_of_another_shape_is_refused(self, max_messenger: MaxHarness, payload: object) -> None:
        update = max_messenger.fake.write(max_messenger.person(PHONE), "")
        update["message"]["body"]["attachments"] = [{"type": "contact", "payload": payload}]
        with pytest.raises(UpdateUnreadable):
            read(max_messenger, update)

    def shared(self, max_messenger: MaxHarness, card: str) -> BotEvent:
        fake = max_messenger.fake
        person = fake.person(PHONE)
        (event,) = read(max_messenger, fake.share_card(person, card=card, owner=person, signature=fake.sign(card)))
        return event


def test_a_restart_by_words_is_a_start(max_messenger: MaxHarness) -> None:
    """The button to start is gone in a dialog that was begun, and the link then arrives as a message."""
    (event,) = read(max_messenger, max_messenger.fake.write(max_messenger.person(PHONE), f"/start {NONCE}"))
    assert isinstance(event, BotStarted)
    assert event.nonce == NONCE


@pytest.mark.parametrize("payload", [None, "", "a b", "ж", "x" * 512])
def test_a_start_without_a_nonce_of_ours(max_messenger: MaxHarness, payload: str | None) -> None:
    fake = max_messenger.fake
    update = fake.open_link(fake.person(PHONE), max_messenger.sender().start_link(NONCE))
    update["payload"] = payload
    (event,) = read(max_messenger, update)
    assert isinstance(event, BotStarted)
    assert event.nonce is None


def test_removing_the_dialog_is_stopping(max_messenger: MaxHarness) -> None:
    update = max_messenger.fake.stop(max_messenger.person(PHONE))
    update["update_type"] = "dialog_removed"
    assert isinstance(read(max_messenger, update)[0], BotStopped)


@pytest.mark.parametrize("kind", ["chat", "channel"])
def test_what_happens_in_groups_is_no_business_of_ours(max_messenger: MaxHarness, kind: str) -> None:
    fake = max_messenger.fake
    person = fake.person(PHONE)
    card = fake.card(PHONE)
    for update in (
        fake.write(person, f"/start {NONCE}", chat_type=kind),
        fake.share_card(person, card=card, owner=person, signature=fake.sign(card)),
    ):
        update["message"]["recipient"]["chat_type"] = kind
        assert read(max_messenger, update) == ()


def test_pictures_and_words_are_no_business_of_ours(max_messenger: MaxHarness) -> None:
    update = max_messenger.fake.write(max_messenger.person(PHONE), "hello")
    update["message"]["body"]["attachments"] = [{"type": "image", "payload": {"photo_id": 1}}, {"type": "location"}]
    assert read(max_messenger, update) == ()


def test_several_updates_in_one_call_are_all_read(max_messenger: MaxHarness) -> None:
    fake = max_messenger.fake
    person = fake.person(PHONE)
    link = max_messenger.sender().start_link(NONCE)
    events = read(max_messenger, [fake.open_link(person, link), fake.write(person, "hello"), fake.stop(person)])
    assert [type(event) for event in events] == [BotStarted, BotStopped]


def test_a_bundle_of_certificates_is_read_at_start(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    with pytest.raises(OSError, match="No such file"):
        MaxBot(token=TOKEN, username=USERNAME, webhook_secret=SECRET, ca_file=bundle)
    bundle.write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        MaxBot(token=TOKEN, username=USERNAME, webhook_secret=SECRET, ca_file=bundle)
