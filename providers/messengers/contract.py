"""What the services ask of whoever brings a code to a phone's owner: a gateway, a messenger's bot, one day SMS.

There are two roads. A gateway reaches a phone number by itself. A bot may not write first: the person opens it by a
link of ours, shows the number by the messenger's own button, and from then on has an address in that messenger. Both
roads end in `CodeSender.send`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol
from uuid import UUID

from core.errors import DomainError, ErrorKind, RateLimited, Unavailable

Reach = Literal["phone", "address"]
"""What a sender needs to find somebody: the phone number, or the address that a bot learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderCapabilities:
    """What differs between senders and matters to a service.

    `development_only`: codes do not leave the house; production refuses to wire it, and `dev_code` may be answered.
    """

    reach: Reach
    development_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeMessage:
    """One code for one person; `id` stays the same when it is sent again.

    What is personal is left out of `repr`, so that no log shows it by accident.

    * `phone`: E.164 (`core/phones.py`).
    * `address`: where a bot writes to this person, None as long as no bot knows them.
    * `code`: 4 to 8 decimal digits; `text` is the sentence around it in the person's language. A gateway with wording
      of its own uses `code` alone.
    * `lifetime_s`: how long the code will be good.
    """

    id: UUID
    phone: str = field(repr=False)
    address: str | None = field(default=None, repr=False)
    code: str = field(repr=False)
    text: str = field(repr=False)
    lifetime_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSent:
    """The messenger took the code; `reference` is its own id of the message, at most 255 characters."""

    reference: str


class UnreachableBecause(StrEnum):
    """Why nobody can be reached."""

    NO_ACCOUNT = "no_account"
    NOT_STARTED = "not_started"
    BLOCKED = "blocked"


class RecipientUnreachable(DomainError):
    """This person cannot be reached this way, and repeating will not help; another road may.

    * `NO_ACCOUNT`: the number has no account in the messenger.
    * `NOT_STARTED`: the person has not opened the bot yet.
    * `BLOCKED`: the person has stopped the bot, or the account is gone.
    """

    kind = ErrorKind.BAD_REQUEST
    code = "RECIPIENT_UNREACHABLE"
    message = "This phone number cannot be reached in this messenger"

    def __init__(self, reason: UnreachableBecause) -> None:
        self.reason = reason
        super().__init__(details={"reason": reason.value})


class MessengerBusy(RateLimited):
    """The messenger takes no more for now; `retry_after_s` is what it asked for, at least 1."""

    message = "Too many codes were sent. Try again later"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__(retry_after_s=retry_after_s)


class MessengerUnavailable(Unavailable):
    """The messenger did not answer as it should. A code may have been sent or not.

    `retryable` is False when repeating cannot help before an operator acts: refused credentials, no money left, a
    request that the messenger does not accept.
    """

    message = "The messenger is temporarily unavailable"

    def __init__(self, *, retryable: bool) -> None:
        self.retryable = retryable
        super().__init__()


class UpdateNotProven(DomainError):
    """A webhook call does not prove that it comes from the messenger."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "INVALID_SIGNATURE"
    message = "Invalid webhook signature"


class UpdateUnreadable(DomainError):
    """A webhook call is the messenger's but is not what it documents."""

    kind = ErrorKind.BAD_REQUEST
    code = "INVALID_PAYLOAD"
    message = "Invalid webhook payload"


@dataclass(frozen=True, slots=True, kw_only=True)
class _FromPerson:
    """Something a person did in the bot.

    * `update_id`: the same when the messenger delivers again, unique for its bot; at most 255 characters.
    * `address`: where to answer, and who it was: one person has one address in one bot.
    * `locale`: ISO 639 code of the messenger's language, if it told.
    """

    update_id: str
    address: str = field(repr=False)
    locale: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BotStarted(_FromPerson):
    """Somebody opened the bot; `nonce` is that of our link, None if they came another way."""

    nonce: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactShared(_FromPerson):
    """Somebody showed their own number by the button, and the messenger vouches for it; `phone` is E.164."""

    phone: str = field(repr=False)


class ContactFault(StrEnum):
    """Why a shown contact proves nothing."""

    NOT_OWN = "not_own"
    NOT_A_PHONE = "not_a_phone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactRefused(_FromPerson):
    """Somebody showed a contact that is not theirs, or not provably, or whose number `core/phones.py` refuses."""

    fault: ContactFault


@dataclass(frozen=True, slots=True, kw_only=True)
class BotStopped(_FromPerson):
    """Somebody stopped or removed the bot: it can no longer write to this address."""


BotEvent = BotStarted | ContactShared | ContactRefused | BotStopped


class DeliveryStatus(StrEnum):
    """How far a message came."""

    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """What a gateway tells later about a message.

    `message_id` is our `CodeMessage.id`, None if it does not say; `reference` is that of `CodeSent`.
    """

    message_id: UUID | None
    reference: str
    status: DeliveryStatus
    at: datetime


class CodeSender(Protocol):
    """Brings codes to people. Adapters hold their settings and connections, and no state of ours."""

    @property
    def name(self) -> str:
        """The sender's name in rows and logs: lower case, stable for ever."""

    @property
    def capabilities(self) -> SenderCapabilities:
        """What this sender can do."""

    async def send(self, message: CodeMessage) -> CodeSent:
        """Hand one code over. Sent again, it may arrive twice; it is the same code then.

        Raises:
            RecipientUnreachable: this person cannot be reached by this sender.
            MessengerBusy: there were too many; `retry_after_s` says when to come back.
            MessengerUnavailable: the messenger is away or broken, or refuses us.
        """

    async def aclose(self) -> None:
        """Close connections; may be called more than once."""


class MessengerBot(CodeSender, Protocol):
    """A bot to which people show their number. Its methods that write raise what `send` raises."""

    def start_link(self, nonce: str) -> str:
        """Return the address that opens the bot and hands it `nonce`, as `BotStarted` tells later.

        Raises:
            ValueError: the nonce is not 1 to 64 of `A-Z a-z 0-9 _ -`, which is what every messenger carries.
        """

    async def ask_for_contact(self, address: str, *, text: str, button: str) -> None:
        """Write `text` with a button under it that shows the person's own number; `button` is its label."""

    async def say(self, address: str, text: str) -> None:
        """Write a text, and take the button away where it would stay."""

    async def set_webhook(self, url: str) -> None:
        """Have the messenger deliver what people do to `url`, which must be https, with our secret."""

    def read_updates(self, *, body: bytes, headers: Mapping[str, str]) -> tuple[BotEvent, ...]:
        """Prove that the messenger made this webhook call, and read it; empty means that it is no business of ours.

        Header names are matched whatever their case.

        Raises:
            UpdateNotProven: the secret is missing or wrong.
            UpdateUnreadable: the body is not this messenger's update.
        """
