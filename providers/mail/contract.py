"""What a mail transport is given and what it promises."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One plain-text letter to one person; `id` stays the same when it is sent again."""

    id: UUID
    recipient: str
    subject: str
    body: str
    written_at: datetime


class MailNotSent(Exception):
    """The letter was not taken; `permanent` says that trying again is in vain."""

    def __init__(self, reason: str, *, permanent: bool) -> None:
        super().__init__(reason)
        self.permanent = permanent


class MailTransport(Protocol):
    """Hands letters over."""

    async def send(self, letter: Letter) -> None:
        """Hand one letter over; raises MailNotSent.

        It may be called again for a letter that did arrive: the message id is the same each time.
        """
