"""The phone of an account: added to one that is known by its address, put in the place of another, taken away."""

from sqlalchemy import select

from core.phones import mask_phone
from models.users import User
from services.auth.accounts import lock_account, write_account
from services.auth.announcer import announce
from services.auth.errors import LastWayIn, PhoneAbsent
from services.auth.notices import SecurityNotices
from services.identity import Principal
from services.phones.codes import PhoneCodes
from services.phones.errors import PhoneTaken
from services.step_up import require_recent_authentication
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory
from services.verification import require_proven

_SCOPE = PlatformScope("a phone belongs to a person, not to a tenant")


class OwnPhone:
    """The use cases around the caller's own phone."""

    def __init__(self, *, units: UnitOfWorkFactory, codes: PhoneCodes, notices: SecurityNotices) -> None:
        self._units = units
        self._codes = codes
        self._notices = notices

    async def require_allowed(self, uow: UnitOfWork, actor: Principal) -> None:
        """Raise StepUpRequired, Impersonated or EmailUnverified unless the caller may change the phone now."""
        await require_recent_authentication(uow, actor)
        await require_proven(uow, actor)

    async def change(self, actor: Principal, *, phone: str, code: str, trace: RequestTrace | None = None) -> None:
        """Make a phone (E.164) the caller's by the code that it was sent; an earlier one is the caller's no more.

        Only for accounts that are proven to be their owner's: whoever signed up with somebody else's address must not
        keep a way in for the day on which its owner takes the account. Raises what `require_allowed` does,
        PhoneCodeRefused and PhoneTaken.
        """
        async with self._units(_SCOPE, trace=trace) as uow:
            await self.require_allowed(uow, actor)
        proven = await self._codes.prove(phone=phone, code=code, trace=trace)
        async with self._units(_SCOPE, trace=trace) as uow:
            await self.require_allowed(uow, actor)
            user = await lock_account(uow, actor.user_id)
            await self._codes.redeem(uow, proven)
            # Told only now that the phone is proven.
            if await uow.session.scalar(select(User.id).where(User.phone == phone, User.id != user.id)) is not None:
                raise PhoneTaken
            former, user.phone = user.phone, phone
            user.updated_at = uow.now
            await write_account(uow)
            await announce(uow, user.id, "phone_changed")
            await self._notices.warn(uow, user.id, "phone_changed", tenant_id=actor.tenant_id, phone=mask_phone(phone))
            uow.audit(
                "user.phone_changed",
                actor_id=user.id,
                tenant_id=actor.tenant_id,
                subject=("user", user.id),
                details={"from": mask_phone(former) if former else None, "to": mask_phone(phone)},
            )

    async def remove(self, uow: UnitOfWork, actor: Principal) -> None:
        """Take the phone from the caller's account, which is then known by its address alone. Needs a PlatformScope.

        Raises StepUpRequired, Impersonated, PhoneAbsent, and LastWayIn unless the caller has a confirmed address and a
        password.
        """
        await require_recent_authentication(uow, actor)
        user = await lock_account(uow, actor.user_id)
        if user.phone is None:
            raise PhoneAbsent
        if user.email_verified_at is None or user.hashed_password is None:
            raise LastWayIn
        former, user.phone = user.phone, None
        user.updated_at = uow.now
        await announce(uow, user.id, "phone_removed")
        await self._notices.warn(uow, user.id, "phone_removed", tenant_id=actor.tenant_id, phone=mask_phone(former))
        uow.audit(
            "user.phone_removed",
            actor_id=user.id,
            tenant_id=actor.tenant_id,
            subject=("user", user.id),
            details={"from": mask_phone(former)},
        )
