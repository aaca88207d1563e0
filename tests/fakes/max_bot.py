"""A fake of the messenger MAX's Bot API (dev.max.ru/docs-api), and of the people who use a bot.

It shares no code with the product. The story methods of `FakeMax` do what a person does, and return the update that MAX
makes of it; `deliver_update` POSTs one to the webhook.
"""

import hashlib
import hmac
import itertools
import re
import secrets
import time
from urllib.parse import parse_qs, urlsplit

from tests.fakes.messenger_http import FakeHttpServer, Obj, Result, Seen

TOKEN = "f9LHodD0cOJfake-max-token"
USERNAME = "id7700000000_bot"


class Refused(Exception):
    """The API answers with this status, code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class FakeMax(FakeHttpServer):
    """One bot and its people. `messages` is what the bot wrote, `subscription` what it asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Obj] = []
        self.subscription: Obj = {}
        self.busy_for_s = 0
        self._phones: dict[int, str] = {}
        self._started: set[int] = set()
        self._blocked: set[int] = set()
        # Of their own in each instance: tests that share a database share no people and no updates.
        self._ids = itertools.count(secrets.randbelow(2**40))
        self._people = itertools.count(54321 + secrets.randbelow(2**40))

    # ------------------------------------------------------------------------------------------ people

    def person(self, phone: str) -> int:
        """Somebody signs up for MAX; returns their id."""
        user = next(self._people)
        self._phones[user] = phone
        return user

    def open_link(self, user: int, link: str) -> Obj:
        """Somebody follows a link of the bot and presses Start."""
        address = urlsplit(link)
        assert (address.scheme, address.netloc, address.path) == ("https", "max.ru", f"/{USERNAME}")
        (payload,) = parse_qs(address.query)["start"]
        self._started.add(user)
        self._blocked.discard(user)
        return {**self._update("bot_started"), "chat_id": -user, "user": _person(user), "payload": payload}

    def write(self, user: int, text: str, *, chat_type: str = "dialog") -> Obj:
        return self._message(user, chat_type=chat_type, text=text)

    def share_own_contact(self, user: int) -> Obj:
        """Somebody presses the button under the bot's message."""
        (keyboard,) = self.messages[-1]["attachments"]
        assert keyboard["payload"]["buttons"][0][0]["type"] == "request_contact"
        card = self.card(self._phones[user])
        return self.share_card(user, card=card, owner=user, signature=self.sign(card))

    def share_card(self, user: int, *, card: str, owner: int | None, signature: str | None) -> Obj:
        """Somebody sends a contact; MAX signs only the number of one's own account."""
        payload: Obj = {"vcf_info": card}
        if owner is not None:
            payload["max_info"] = _person(owner)
        if signature is not None:
            payload["hash"] = signature
        return self._message(user, attachments=[{"type": "contact", "payload": payload}])

    def card(self, phone: str) -> str:
        """A vCard as MAX writes it: the number without a plus."""
        lines = ("BEGIN:VCARD", "VERSION:3.0", f"TEL;TYPE=cell:{phone.removeprefix('+')}", "FN:Анна", "END:VCARD", "")
        return "\r\n".join(lines)

    def sign(self, card: str, *, token: str = TOKEN) -> str:
        return hmac.new(token.encode(), card.encode(), hashlib.sha256).hexdigest()

    def stop(self, user: int) -> Obj:
        """Somebody stops the bot."""
        self._blocked.add(user)
        return {**self._update("bot_stopped"), "chat_id": -user, "user": _person(user)}

    def _message(self, user: int, *, chat_type: str = "dialog", **content: object) -> Obj:
        message = {
            "recipient": {"chat_id": -user, "chat_type": chat_type, "user_id": 10002},
            "timestamp": _now_ms(),
            "body": {"mid": f"mid.{next(self._ids):032x}", "seq": next(self._ids), **content},
            "sender": _person(user),
        }
        return {**self._update("message_created"), "message": message}

    def _update(self, kind: str) -> Obj:
        return {"update_type": kind, "timestamp": _now_ms(), "user_locale": "ru"}

    async def deliver_update(self, update: object, url: str, *, secret: str | None = None) -> int:
        """POST an update as MAX does; the secret is that of the subscription unless another is given."""
        token = self.subscription["secret"] if secret is None else secret
        return await self.deliver(update, url, headers={"X-Max-Bot-Api-Secret": token})

    # ------------------------------------------------------------------------------------------ the API

    async def work(self, seen: Seen) -> Result:
        if self.busy_for_s:
            answer = {"code": "too.many.requests", "message": "Too many requests"}
            return Result(429, answer, {"Retry-After": str(self.busy_for_s)})
        try:
            return Result(200, self._call(seen))
        except Refused as refused:
            return Result(refused.status, {"code": refused.code, "message": str(refused)})

    def _call(self, seen: Seen) -> Obj:
        # A token in the query is no longer taken.
        if seen.headers.get("Authorization") != TOKEN:
            raise Refused(401, "verify.token", "Invalid access_token")
        if (seen.method, seen.path) == ("POST", "/messages"):
            return self._send(int(seen.query["user_id"]), seen.body)
        if (seen.method, seen.path) == ("POST", "/subscriptions"):
            return self._subscribe(seen.body)
        raise Refused(404, "not.found", f"Path {seen.path} is not recognized")

    def _send(self, user: int, body: Obj) -> Obj:
        if not body.get("text") or len(body["text"]) > 4000:
            raise Refused(400, "proto.payload", "text: size must be between 1 and 4000")
        if user not in self._started:
            raise Refused(404, "chat.not.found", "dialog.not.found")
        if user in self._blocked:
            raise Refused(403, "chat.denied", "error.dialog.suspended")
        self.messages.append({**body, "user_id": user})
        return {
            "message": {
                "recipient": {"chat_id": -user, "chat_type": "dialog", "user_id": user},
                "timestamp": _now_ms(),
                "body": {"mid": f"mid.{next(self._ids):032x}", "seq": next(self._ids), "text": body["text"]},
                "sender": {"user_id": 10002, "first_name": "ERPMax", "username": USERNAME, "is_bot": True},
            }
        }

    def _subscribe(self, body: Obj) -> Obj:
        if not body["url"].startswith("https://"):
            return {"success": False, "message": "Invalid webhook url"}
        if not re.fullmatch(r"[a-zA-Z0-9_-]{5,256}", body["secret"]):
            raise Refused(400, "proto.payload", "secret: must match the pattern")
        self.subscription = body
        return {"success": True}


def _person(user: int) -> Obj:
    return {"user_id": user, "first_name": "Анна", "last_name": "", "is_bot": False, "last_activity_time": _now_ms()}


def _now_ms() -> int:
    return int(time.time() * 1000)
