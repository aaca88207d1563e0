"""Codes that prove a phone: made, brought to its owner, guessed at a few times at most, used once (contract.md 2.6).

They live in the database alone, so nothing about them gets weaker while Redis is away.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import Select, select, text, update
from sqlalchemy.dialects.postgresql import insert

from core.errors import RateLimited
from core.otp import CodeHasher, new_code
from core.phones import mask_phone
from core.tokens import new_opaque_token, token_hash
from core.windows import Window
from models.messengers import LINK_LIFETIME, MessageKind, MessengerLink, MessengerMessage
from models.phones import CODE_ATTEMPTS, CODE_LIFETIME, PhoneCode, PhoneCodePurpose
from providers.messengers import CodeSender
from services.attempts import count_attempt, full_s
from services.phones.chats import lock_phone
from services.phones.errors import PhoneCodeRefused
from services.phones.post import Post
from services.phones.roads import Road, Roads
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

_PURPOSE = PhoneCodePurpose.SIGN_IN
_SCOPE = PlatformScope("a phone belongs to a person, not to a tenant")


@dataclass(frozen=True, slots=True)
class Pace:
    """How many codes one phone gets within a time, or all phones together."""

    codes: int
    within: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRequested:
    """What came of asking for a code.

    * `dev_code`: the code itself, only where no code leaves the house.
    * `start_link`: opens the bot, which asks for the phone and then writes the code into the chat; None without a bot.
    """

    dev_code: str | None
    start_link: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenCode:
    """A code that was guessed right and still has to be used up, by `PhoneCodes.redeem`."""

    code_id: UUID
    digest: str
    phone: str


class PhoneCodes:
    """The use cases around one code; all need a PlatformScope.

    `hashers` are those of the codes: the first makes them, and each of them is asked whether it made one. `paces` are
    those of one phone, `total` those of all phones together.
    """

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        hashers: Sequence[CodeHasher],
        roads: Roads,
        post: Post,
        paces: Sequence[Pace],
        total: Sequence[Pace],
    ) -> None:
        self._units = units
        self._hashers = hashers
        self._roads = roads
        self._post = post
        self._paces = paces
        # The shortest first, so that all count in the same order.
        times = sorted((pace.within // timedelta(seconds=1), pace.codes) for pace in total)
        self._total = [Window(f"phone codes of all {codes}/{time_s}", codes, time_s) for time_s, codes in times]

    async def request(
        self, uow: UnitOfWork, *, phone: str, locale: str, channel: str | None = None, ip: str | None = None
    ) -> CodeRequested:
        """Send a code to a phone, whether anybody has it or not; the earlier one is void.

        Raises ChannelInactive, NoChannel and RateLimited.
        """
        road = await self._roads.choose(uow, phone=phone, channel=channel)
        await lock_phone(uow, phone)
        await self._keep_pace(uow, select(MessengerLink.created_at).where(MessengerLink.phone == phone))
        start_link = self._offer(uow, road, phone=phone, locale=locale)
        dev_code = None
        if road.sender is not None:
            code = await self.issue(uow, sender=road.sender, address=road.address, phone=phone, locale=locale, ip=ip)
            dev_code = code if road.sender.capabilities.development_only else None
        else:
            # A link is no code. Were it offered where a code is refused, that would tell who has shown us their phone.
            _refuse(await full_s(uow, *self._total))
        uow.audit(
            "phone_code.requested",
            actor_id=None,
            tenant_id=None,
            subject=("phone", mask_phone(phone)),
            details={"channel": road.sender.name if road.sender else "link"},
        )
        return CodeRequested(dev_code=dev_code, start_link=start_link)

    async def issue(
        self,
        uow: UnitOfWork,
        *,
        sender: CodeSender,
        address: str | None,
        phone: str,
        locale: str,
        ip: str | None = None,
    ) -> str:
        """Make a code for a locked phone, have it brought, and return it. Raises RateLimited before it does anything.

        The phone has one open code at a time; the new one takes the place of the old one, with all its attempts.
        """
        sent = select(MessengerMessage.created_at).where(
            MessengerMessage.phone == phone, MessengerMessage.kind == MessageKind.CODE
        )
        await self._keep_pace(uow, sent)
        # Last, and undone with the code: only codes that go out count, so no phone can use up what is for all.
        _refuse(await count_attempt(uow, *self._total))
        code = new_code()
        values = {
            "digest": self._hashers[0].digest(code, subject=_subject(phone)),
            "attempts_left": CODE_ATTEMPTS,
            "channel": sender.name,
            "ip": ip,
            "created_at": uow.now,
            "expires_at": uow.now + CODE_LIFETIME,
        }
        await uow.session.execute(
            insert(PhoneCode)
            .values(id=uuid4(), purpose=_PURPOSE, identifier=phone, **values)
            .on_conflict_do_update(
                index_elements=[PhoneCode.purpose, PhoneCode.identifier],
                index_where=text("consumed_at IS NULL"),
                set_=values,
            )
        )
        await self._post.enqueue_code(uow, sender=sender, phone=phone, address=address, code=code, locale=locale)
        return code

    async def prove(self, *, phone: str, code: str, trace: RequestTrace | None = None) -> ProvenCode:
        """Compare what somebody typed with the phone's open code. Raises PhoneCodeRefused.

        The attempt is taken off and committed before the comparison, so that nothing that fails later gives it back
        and no crowd of guesses at once gets more of them.
        """
        async with self._units(_SCOPE, trace=trace) as uow:
            row = (
                await uow.session.execute(
                    update(PhoneCode)
                    .where(
                        PhoneCode.purpose == _PURPOSE,
                        PhoneCode.identifier == phone,
                        PhoneCode.consumed_at.is_(None),
                        PhoneCode.expires_at > uow.now,
                        PhoneCode.attempts_left > 0,
                    )
                    .values(attempts_left=PhoneCode.attempts_left - 1)
                    .returning(PhoneCode.id, PhoneCode.digest, PhoneCode.attempts_left)
                )
            ).one_or_none()
            if row is not None:
                uow.audit(
                    "phone_code.tried",
                    actor_id=None,
                    tenant_id=None,
                    subject=("phone", mask_phone(phone)),
                    details={"attempts_left": row.attempts_left},
                )
        if row is None or not self._matches(code, row.digest, phone):
            raise PhoneCodeRefused
        return ProvenCode(code_id=row.id, digest=row.digest, phone=phone)

    async def redeem(self, uow: UnitOfWork, proven: ProvenCode) -> None:
        """Use a code up in the transaction of what it opens. Raises PhoneCodeRefused if somebody was faster."""
        # One conditional statement: of two that bring the same code at once, only one finds it unused. The digest
        # tells whether the row still holds the code that was guessed, or a newer one.
        used = await uow.session.scalars(
            update(PhoneCode)
            .where(
                PhoneCode.id == proven.code_id,
                PhoneCode.digest == proven.digest,
                PhoneCode.consumed_at.is_(None),
                PhoneCode.expires_at > uow.now,
            )
            .values(consumed_at=uow.now)
            .returning(PhoneCode.id)
        )
        if used.one_or_none() is None:
            raise PhoneCodeRefused

    def _matches(self, code: str, digest: str, phone: str) -> bool:
        return any(hasher.matches(code, digest, subject=_subject(phone)) for hasher in self._hashers)

    def _offer(self, uow: UnitOfWork, road: Road, *, phone: str, locale: str) -> str | None:
        if road.bot is None:
            return None
        token = new_opaque_token()
        uow.session.add(
            MessengerLink(
                id=uuid4(),
                messenger=road.messenger,
                token_hash=token_hash(token),
                phone=phone,
                locale=locale,
                created_at=uow.now,
                expires_at=uow.now + LINK_LIFETIME,
            )
        )
        return road.bot.start_link(token)

    async def _keep_pace(self, uow: UnitOfWork, moments: Select[datetime]) -> None:
        """Raise RateLimited when too many of `moments` are too near; no other can come about meanwhile."""
        when = moments.selected_columns[0]
        for pace in self._paces:
            blocking: datetime | None = await uow.session.scalar(
                moments.where(when > uow.now - pace.within).order_by(when.desc()).offset(pace.codes - 1).limit(1)
            )
            if blocking is not None:
                # Whoever waited for the lock may look back at what is younger than they are.
                wait = min(blocking + pace.within - uow.now, pace.within)
                raise RateLimited(retry_after_s=max(1, math.ceil(wait.total_seconds())))


def _refuse(wait_s: int | None) -> None:
    if wait_s is not None:
        raise RateLimited(retry_after_s=wait_s)


def _subject(phone: str) -> str:
    return f"{_PURPOSE.value}:{phone}"
