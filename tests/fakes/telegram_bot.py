"""A fake of Telegram's Bot API (core.telegram.org/bots/api), and of the people who use a bot.

It shares no code with the product. The story methods of `FakeTelegram` do what a person does and return the update that
Telegram makes of it; `deliver_update` POSTs one to the webhook.
"""

import itertools
import secrets
import time
from urllib.parse import parse_qs, urlsplit

from tests.fakes.messenger_http import FakeHttpServer, Obj, Result, Seen

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
USERNAME = "erpmax_test_bot"


class Refused(Exception):
    """The API answers with this status and description."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.status = status
        self.parameters = parameters


class FakeTelegram(FakeHttpServer):
    """One bot and its people. `messages` is what the bot wrote, `webhook` what it asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Obj] = []
        self.webhook: Obj = {}
        self.flood_wait_s = 0
        self._phones: dict[int, str] = {}
        self._started: set[int] = set()
        self._blocked: set[int] = set()
        # Of their own in each instance: tests that share a database share no people and no updates.
        self._ids = itertools.count(secrets.randbelow(2**40))
        self._people = itertools.count(5_000_000_000 + secrets.randbelow(2**40))

    # ------------------------------------------------------------------------------------------ people

    def person(self, phone: str) -> int:
        """Somebody signs up for Telegram; returns their id."""
        user = next(self._people)
        self._phones[user] = phone
        return user

    def open_link(self, user: int, link: str, *, language_code: str | None = "ru") -> Obj:
        """Somebody follows a link of the bot and presses Start."""
        address = urlsplit(link)
        assert (address.scheme, address.netloc, address.path) == ("https", "t.me", f"/{USERNAME}")
        (nonce,) = parse_qs(address.query)["start"]
        return self.write(user, f"/start {nonce}", language_code=language_code)

    def write(self, user: int, text: str, *, language_code: str | None = "ru") -> Obj:
        self._started.add(user)
        self._blocked.discard(user)
        command = [{"offset": 0, "length": 6, "type": "bot_command"}] if text.startswith("/start") else []
        return self._message(user, language_code, text=text, entities=command)

    def share_own_contact(self, user: int) -> Obj:
        """Somebody presses the button under the bot's message."""
        buttons = self.messages[-1]["reply_markup"]["keyboard"]
        assert buttons[0][0]["request_contact"] is True
        # Telegram writes the number without a plus.
        contact = {"phone_number": self._phones[user].removeprefix("+"), "first_name": "Anna", "user_id": user}
        return self._message(user, "ru", contact=contact, reply_to_message={"message_id": len(self.messages)})

    def share_card(self, user: int, *, phone: str, owner: int | None) -> Obj:
        """Somebody sends a card from their address book; `owner` is whose it is in Telegram, if anybody's."""
        contact: Obj = {"phone_number": phone, "first_name": "Boris"}
        return self._message(user, "ru", contact=contact if owner is None else {**contact, "user_id": owner})

    def block(self, user: int) -> Obj:
        """Somebody stops the bot."""
        self._blocked.add(user)
        person = self._user(user, "ru")
        return {
            "update_id": next(self._ids),
            "my_chat_member": {
                "chat": {"id": user, "first_name": "Anna", "type": "private"},
                "from": person,
                "date": int(time.time()),
                "old_chat_member": {"user": _bot(), "status": "member"},
                "new_chat_member": {"user": _bot(), "status": "kicked", "until_date": 0},
            },
        }

    def _message(self, user: int, language_code: str | None, **content: object) -> Obj:
        return {
            "update_id": next(self._ids),
            "message": {
                "message_id": next(self._ids),
                "from": self._user(user, language_code),
                "chat": {"id": user, "first_name": "Anna", "type": "private"},
                "date": int(time.time()),
                **{name: value for name, value in content.items() if value},
            },
        }

    def _user(self, user: int, language_code: str | None) -> Obj:
        person: Obj = {"id": user, "is_bot": False, "first_name": "Anna"}
        return person if language_code is None else {**person, "language_code": language_code}

    async def deliver_update(self, update: object, url: str, *, secret: str | None = None) -> int:
        """POST an update as Telegram does; the secret is that of `setWebhook` unless another is given."""
        token = self.webhook["secret_token"] if secret is None else secret
        return await self.deliver(update, url, headers={"X-Telegram-Bot-Api-Secret-Token": token})

    # ------------------------------------------------------------------------------------------ the API

    async def work(self, seen: Seen) -> Result:
        try:
            return Result(200, {"ok": True, **self._call(seen)})
        except Refused as refused:
            answer: Obj = {"ok": False, "error_code": refused.status, "description": str(refused)}
            more = {"parameters": refused.parameters} if refused.parameters else {}
            return Result(refused.status, {**answer, **more})

    def _call(self, seen: Seen) -> Obj:
        if not seen.path.startswith("/bot"):
            raise Refused(404, "Not Found")
        token, _, method = seen.path.removeprefix("/bot").partition("/")
        if token != TOKEN:
            raise Refused(401, "Unauthorized")
        if method == "sendMessage":
            return {"result": self._send(seen.body)}
        if method == "setWebhook":
            return self._set_webhook(seen.body)
        raise Refused(404, "Not Found")

    def _send(self, body: Obj) -> Obj:
        if self.flood_wait_s:
            wait_s = self.flood_wait_s
            raise Refused(429, f"Too Many Requests: retry after {wait_s}", retry_after=wait_s)
        chat = int(body["chat_id"])
        if not body.get("text"):
            raise Refused(400, "Bad Request: message text is empty")
        if chat not in self._phones:
            raise Refused(400, "Bad Request: chat not found")
        if chat not in self._started:
            raise Refused(403, "Forbidden: bot can't initiate conversation with a user")
        if chat in self._blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        self.messages.append(body)
        return {
            "message_id": len(self.messages),
            "from": _bot(),
            "chat": {"id": chat, "first_name": "Anna", "type": "private"},
            "date": int(time.time()),
            "text": body["text"],
        }

    def _set_webhook(self, body: Obj) -> Obj:
        if not body["url"].startswith("https://"):
            raise Refused(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
        self.webhook = body
        return {"result": True, "description": "Webhook was set"}


def _bot() -> Obj:
    return {"id": int(TOKEN.partition(":")[0]), "is_bot": True, "first_name": "ERPMax", "username": USERNAME}
