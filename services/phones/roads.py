"""Roads: by which messenger a code reaches a phone."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select

from models.messengers import MessengerContact
from providers.messengers import CodeSender, MessengerBot
from services.phones.errors import ChannelInactive, NoChannel
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """How one phone is reached: `sender` brings the code, if anybody can, and `bot` offers itself by a link.

    * `address`: the chat to write to, for a sender that is a bot.
    * `messenger`: the name under which clients know `bot`.
    """

    sender: CodeSender | None = None
    address: str | None = None
    messenger: str = ""
    bot: MessengerBot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Roads:
    """All messengers of this server, by the name that clients use (`telegram`, `max`, one day `sms`).

    `gateways` find people by their phone. `bots` find only those who have shown it to them.
    """

    gateways: Mapping[str, CodeSender]
    bots: Mapping[str, MessengerBot]

    @property
    def senders(self) -> Mapping[str, CodeSender]:
        """Every sender by its own name."""
        return {sender.name: sender for sender in (*self.gateways.values(), *self.bots.values())}

    def messenger_of(self, sender: str) -> str | None:
        """Return the name under which clients know the bot that sends as `sender`; None if that is no bot."""
        return next((name for name, bot in self.bots.items() if bot.name == sender), None)

    def beside(self, sender: str) -> CodeSender | None:
        """Return a sender that needs only the phone, for when `sender` has failed; its own messenger's first."""
        messenger = self.messenger_of(sender)
        if messenger is None:
            return None
        return self.gateways.get(messenger) or next(iter(self.gateways.values()), None)

    async def choose(self, uow: UnitOfWork, *, phone: str, channel: str | None) -> Road:
        """Choose a road: the chat that is known to be the phone's, else a gateway, else only the link into a bot.

        `channel` narrows the choice to one messenger. Raises ChannelInactive and NoChannel, which depend on the
        server's settings alone and tell nothing of the phone.
        """
        names = list(dict.fromkeys((*self.bots, *self.gateways)))
        if not names:
            raise NoChannel
        if channel is not None and channel not in names:
            raise ChannelInactive(channel)
        wanted = names if channel is None else [channel]
        messenger = next((name for name in wanted if name in self.bots), "")
        bot = self.bots.get(messenger)
        contact = await uow.session.scalar(
            select(MessengerContact)
            .where(MessengerContact.phone == phone, MessengerContact.messenger.in_(set(wanted) & set(self.bots)))
            .order_by(MessengerContact.verified_at.desc())
            .limit(1)
        )
        if contact is not None:
            sender: CodeSender | None = self.bots[contact.messenger]
            return Road(sender=sender, address=contact.address, messenger=messenger, bot=bot)
        sender = next((self.gateways[name] for name in wanted if name in self.gateways), None)
        return Road(sender=sender, messenger=messenger, bot=bot)
