"""The second factor: setting up an authenticator app, its codes and the recovery codes, and switching it off.

Whoever enters a wrong code is counted, and the count must stay although the answer is a refusal: so what tries a code
opens its own unit of work and raises only when that is over.
"""

from collections.abc import Sequence
from uuid import UUID, uuid4

import structlog
from sqlalchemy import delete, func, select, update

from core.errors import DomainError, RateLimited
from core.otp import CodeHasher
from core.qr import qr_svg
from core.sealing import SealBroken, Sealer
from core.totp import (
    accepted_counter,
    matching_recovery_digest,
    new_recovery_codes,
    new_totp_secret,
    provisioning_uri,
    recovery_digest,
)
from models.second_factors import RecoveryCode, SecondFactor, SignInChallenge
from models.users import User
from services.auth.announcer import announce
from services.auth.endings import end_sessions
from services.auth.errors import SecondFactorAbsent, SecondFactorPresent, WrongCode
from services.auth.notices import SecurityNotices
from services.auth.views import EnrolmentView, RecoveryCodesView, SecondFactorView
from services.events import AccountChange
from services.identity import Principal
from services.step_up import require_recent_authentication
from services.tenants.members import lock_user
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

_ISSUER = "ERPMax"
_SCOPE = PlatformScope("a second factor belongs to a person, not to a tenant")

logger = structlog.get_logger(__name__)


class SecondFactors:
    """The use cases around one's own second factor; all need a PlatformScope.

    `hashers` are those of the recovery codes: the first makes them, and each of them is asked whether it made one.
    """

    def __init__(
        self, *, units: UnitOfWorkFactory, sealer: Sealer, hashers: Sequence[CodeHasher], notices: SecurityNotices
    ) -> None:
        self._units = units
        self._sealer = sealer
        self._hashers = hashers
        self._notices = notices

    async def show(self, uow: UnitOfWork, actor: Principal) -> SecondFactorView:
        """Tell whether the caller has a second factor, and how many recovery codes are left."""
        factor = await uow.session.scalar(select(SecondFactor).where(SecondFactor.user_id == actor.user_id))
        confirmed_at = factor.confirmed_at if factor is not None else None
        return SecondFactorView(
            enabled=confirmed_at is not None,
            confirmed_at=confirmed_at,
            recovery_codes_left=await self._codes_left(uow, actor.user_id),
        )

    async def enrol(self, uow: UnitOfWork, actor: Principal) -> EnrolmentView:
        """Make a secret for the caller's app; it counts once a code of it has come back.

        Raises StepUpRequired and SecondFactorPresent.
        """
        await require_recent_authentication(uow, actor)
        await lock_user(uow, actor.user_id)
        if await self.confirmed(uow, actor.user_id) is not None:
            raise SecondFactorPresent
        await uow.session.execute(delete(SecondFactor).where(SecondFactor.user_id == actor.user_id))
        secret = new_totp_secret()
        uow.session.add(
            SecondFactor(
                user_id=actor.user_id,
                secret=self._sealer.seal(secret, subject=_subject(actor.user_id)),
                created_at=uow.now,
                failures=0,
            )
        )
        user = (await uow.session.scalars(select(User).where(User.id == actor.user_id))).one()
        uow.audit("second_factor.enrolled", actor_id=actor.user_id, tenant_id=None, subject=("user", actor.user_id))
        uri = provisioning_uri(secret, account=user.email or user.phone or "", issuer=_ISSUER)
        return EnrolmentView(secret=secret, provisioning_uri=uri, qr_svg=qr_svg(uri))

    async def confirm(self, actor: Principal, *, code: str, trace: RequestTrace | None = None) -> RecoveryCodesView:
        """Switch the second factor on by a code of the app; returns the recovery codes, which are shown only now.

        Every other session ends, for whoever opened it showed no second factor. Raises SecondFactorAbsent,
        SecondFactorPresent, WrongCode, RateLimited.
        """
        async with self._units(_SCOPE, trace=trace) as uow:
            outcome = await self._confirm(uow, actor, code)
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    async def disable(self, uow: UnitOfWork, actor: Principal) -> None:
        """Switch the second factor off; every other session ends. Raises StepUpRequired and SecondFactorAbsent."""
        await self._present(uow, actor)
        await uow.session.execute(delete(SecondFactor).where(SecondFactor.user_id == actor.user_id))
        await uow.session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == actor.user_id))
        await end_sessions(uow, actor.user_id, reason="two_factor_disabled", keep=actor.session_id)
        await self._tell(uow, actor, "two_factor_disabled", action="second_factor.disabled")

    async def renew_codes(self, uow: UnitOfWork, actor: Principal) -> RecoveryCodesView:
        """Make new recovery codes; those of before are void. Raises StepUpRequired and SecondFactorAbsent."""
        await self._present(uow, actor)
        view = await self._new_codes(uow, actor.user_id)
        await self._tell(uow, actor, "recovery_codes_renewed", action="recovery_codes.renewed")
        return view

    async def forget(self, uow: UnitOfWork, user_id: UUID) -> bool:
        """Remove all of a locked user's second factor, and sign-ins that wait for it; returns whether it was on.

        The caller has decided so, ends the sessions, and tells whom it concerns.
        """
        was_on = await self.confirmed(uow, user_id) is not None
        for table in (SecondFactor, RecoveryCode, SignInChallenge):
            await uow.session.execute(delete(table).where(table.user_id == user_id))
        return was_on

    async def confirmed(self, uow: UnitOfWork, user_id: UUID) -> SecondFactor | None:
        """Return a user's second factor, locked, if they have switched one on."""
        factor = await self._locked(uow, user_id)
        return factor if factor is not None and factor.confirmed_at is not None else None

    async def judge(self, uow: UnitOfWork, factor: SecondFactor, code: str) -> DomainError | None:
        """Take a code of the app or a recovery code, which is then used up; returns why it is refused, if it is.

        `factor` is locked. The caller lets the unit of work commit in either case, so that the attempt counts.
        """
        wait = factor.locked_for(uow.now)
        if wait is not None:
            return RateLimited(retry_after_s=int(wait.total_seconds()) + 1)
        if self._is_of_app(factor, code, uow) or await self._burn(uow, factor.user_id, code):
            factor.succeed()
            return None
        factor.fail(uow.now)
        uow.audit("second_factor.refused", actor_id=None, tenant_id=None, subject=("user", factor.user_id))
        return WrongCode()

    async def _confirm(self, uow: UnitOfWork, actor: Principal, code: str) -> RecoveryCodesView | DomainError:
        await lock_user(uow, actor.user_id)
        factor = await self._locked(uow, actor.user_id)
        if factor is None:
            return SecondFactorAbsent()
        if factor.confirmed_at is not None:
            return SecondFactorPresent()
        problem = await self.judge(uow, factor, code)
        if problem is not None:
            return problem
        factor.confirmed_at = uow.now
        view = await self._new_codes(uow, actor.user_id)
        await end_sessions(uow, actor.user_id, reason="two_factor_enabled", keep=actor.session_id)
        await self._tell(uow, actor, "two_factor_enabled", action="second_factor.confirmed")
        return view

    async def _present(self, uow: UnitOfWork, actor: Principal) -> None:
        await require_recent_authentication(uow, actor)
        await lock_user(uow, actor.user_id)
        if await self.confirmed(uow, actor.user_id) is None:
            raise SecondFactorAbsent

    async def _locked(self, uow: UnitOfWork, user_id: UUID) -> SecondFactor | None:
        factor: SecondFactor | None = await uow.session.scalar(
            select(SecondFactor).where(SecondFactor.user_id == user_id).with_for_update()
        )
        return factor

    def _is_of_app(self, factor: SecondFactor, code: str, uow: UnitOfWork) -> bool:
        subject = _subject(factor.user_id)
        try:
            secret = self._sealer.open(factor.secret, subject=subject)
        except SealBroken:
            # The server's secret was replaced and the former one forgotten; recovery codes may still be good.
            logger.exception("second factor cannot be read", user_id=str(factor.user_id))
            return False
        counter = accepted_counter(secret, code, now=uow.now, last_counter=factor.last_counter)
        if counter is None:
            return False
        factor.last_counter = counter
        # Sealed anew, so that a former secret of the server is needed until the next sign-in only.
        factor.secret = self._sealer.seal(secret, subject=subject)
        return True

    async def _burn(self, uow: UnitOfWork, user_id: UUID, code: str) -> bool:
        mine = RecoveryCode.user_id == user_id, RecoveryCode.used_at.is_(None)
        digests = (await uow.session.scalars(select(RecoveryCode.digest).where(*mine))).all()
        found = [
            digest
            for hasher in self._hashers
            if (digest := matching_recovery_digest(code, digests, hasher, subject=_subject(user_id))) is not None
        ]
        if not found:
            return False
        # One conditional statement: of two that bring the same code at once, only one finds it unused.
        burnt = await uow.session.scalars(
            update(RecoveryCode)
            .where(*mine, RecoveryCode.digest == found[0])
            .values(used_at=uow.now)
            .returning(RecoveryCode.id)
        )
        if burnt.one_or_none() is None:
            return False
        uow.audit("recovery_code.used", actor_id=user_id, tenant_id=None, subject=("user", user_id))
        left = await self._codes_left(uow, user_id)
        await self._notices.warn(uow, user_id, "recovery_code_used", tenant_id=None, left=left)
        return True

    async def _new_codes(self, uow: UnitOfWork, user_id: UUID) -> RecoveryCodesView:
        await uow.session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
        codes = new_recovery_codes()
        uow.session.add_all(
            RecoveryCode(
                id=uuid4(),
                user_id=user_id,
                digest=recovery_digest(code, self._hashers[0], subject=_subject(user_id)),
                created_at=uow.now,
            )
            for code in codes
        )
        return RecoveryCodesView(recovery_codes=list(codes))

    async def _codes_left(self, uow: UnitOfWork, user_id: UUID) -> int:
        left = select(func.count()).select_from(RecoveryCode)
        return (
            await uow.session.scalar(left.where(RecoveryCode.user_id == user_id, RecoveryCode.used_at.is_(None))) or 0
        )

    async def _tell(self, uow: UnitOfWork, actor: Principal, change: AccountChange, *, action: str) -> None:
        await announce(uow, actor.user_id, change)
        await self._notices.warn(uow, actor.user_id, change, tenant_id=actor.tenant_id)
        uow.audit(action, actor_id=actor.user_id, tenant_id=None, subject=("user", actor.user_id))


def _subject(user_id: UUID) -> str:
    return f"second factor of {user_id}"
