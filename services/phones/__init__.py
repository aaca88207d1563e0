"""Phones: proving by a code that a number is in somebody's hand, and the messengers that bring the code."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete

from core.otp import CodeHasher
from core.sealing import Sealer
from models.messengers import MessengerLink, MessengerMessage, MessengerUpdate
from models.phones import PhoneCode
from services.phones.bots import Bots
from services.phones.codes import CodeRequested, Pace, PhoneCodes
from services.phones.post import Post
from services.phones.roads import Roads
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

__all__ = ["CodeRequested", "Pace", "PhoneService", "Roads"]

# Longer than any pace looks back, and longer than a messenger goes on delivering an update again (a day).
_KEEP = timedelta(days=2)
_SCOPE = PlatformScope("what is too old goes, whoever it is about")


class PhoneService:
    """Its parts hold the use cases: `codes` those of people, `bots` those of webhooks, `post` what the worker brings.

    Args:
        sealer: encrypts codes for the time that they wait to be sent.
        hashers: hash codes; the first makes new ones.
        paces: how many codes one phone gets; none looks back further than a day.
        total: how many codes all phones together get.
    """

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        roads: Roads,
        sealer: Sealer,
        hashers: Sequence[CodeHasher],
        paces: Sequence[Pace],
        total: Sequence[Pace],
    ) -> None:
        self._units = units
        self.roads = roads
        self.post = Post(units=units, roads=roads, sealer=sealer)
        self.codes = PhoneCodes(units=units, hashers=hashers, roads=roads, post=self.post, paces=paces, total=total)
        self.bots = Bots(roads=roads, codes=self.codes, post=self.post)

    async def send(self, message_id: UUID) -> None:
        """Try to send one message; see `Post.send`."""
        await self.post.send(message_id)

    async def sweep(self) -> None:
        """Ring again for messages whose time has come; see `Post.sweep`."""
        await self.post.sweep()

    async def prune(self) -> None:
        """Forget codes, links, updates and messages that are of no use any more."""
        async with self._units(_SCOPE) as uow:
            old = uow.now - _KEEP
            await uow.session.execute(delete(PhoneCode).where(PhoneCode.expires_at < old))
            await uow.session.execute(delete(MessengerLink).where(MessengerLink.expires_at < old))
            await uow.session.execute(delete(MessengerUpdate).where(MessengerUpdate.received_at < old))
            await uow.session.execute(delete(MessengerMessage).where(MessengerMessage.created_at < old))
