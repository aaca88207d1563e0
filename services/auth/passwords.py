"""Passwords: changed by whoever knows the one that is, or replaced by a token that came by mail (contract.md 2.2)."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, select

from models.second_factors import SignInChallenge
from models.users import TokenPurpose, User
from providers.passwords.hasher import PasswordHasher
from services.auth.announcer import announce
from services.auth.endings import end_sessions
from services.auth.errors import ResetTokenInvalid, WrongPassword
from services.auth.letter_tokens import issue_token, use_token, void_tokens, was_sent_just_now
from services.auth.new_passwords import NewPasswords
from services.auth.notices import SecurityNotices
from services.identity import Principal, require_oneself
from services.mail import MailService
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

RESET_LIFETIME = timedelta(hours=1)
_SCOPE = PlatformScope("a password belongs to a person, not to a tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountNames:
    """An account and the names under which its password is tried."""

    user_id: UUID
    email: str | None
    phone: str | None


class Passwords:
    """The use cases around a user's password."""

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        hasher: PasswordHasher,
        new_passwords: NewPasswords,
        mail: MailService,
        notices: SecurityNotices,
        public_url: str,
    ) -> None:
        self._units = units
        self._hasher = hasher
        self._new_passwords = new_passwords
        self._notices = notices
        self._mail = mail
        self._public_url = public_url

    async def forgot(self, uow: UnitOfWork, *, email: str) -> None:
        """Send a reset letter if the address belongs to an active user; the caller cannot tell whether it does."""
        user = await uow.session.scalar(select(User).where(User.has_email(email), User.is_active))
        # An audit row is written either way, so that the work of a commit tells nothing either.
        uow.audit(
            "password.reset_requested",
            actor_id=user.id if user else None,
            tenant_id=None,
            subject=("user", user.id if user else "unknown"),
        )
        if user is not None and not await was_sent_just_now(uow, user.id, TokenPurpose.PASSWORD_RESET):
            self._send_token(uow, user)

    async def reset(self, *, token: str, new_password: str, trace: RequestTrace | None = None) -> AccountNames:
        """Set a new password by a letter's token and end every session. Returns whose it is.

        Raises ResetTokenInvalid and PasswordBreached.
        """
        hashed = await self._new_passwords.hash(new_password)
        async with self._units(_SCOPE, trace=trace) as uow:
            used = await use_token(uow, token, TokenPurpose.PASSWORD_RESET)
            if used is None:
                raise ResetTokenInvalid
            user = await uow.session.scalar(select(User).where(User.id == used.user_id, User.is_active))
            if user is None:
                raise ResetTokenInvalid
            # The letter went to the address that the account has: changing that voids the letter.
            user.email_verified_at = user.email_verified_at or uow.now
            return await self.replace(uow, user, hashed)

    async def replace(self, uow: UnitOfWork, user: User, hashed: str) -> AccountNames:
        """Put another password in the place of one that was forgotten and end every session.

        The user is locked and has proved who they are by other means than a password.
        """
        await self._replace(uow, user, hashed)
        await end_sessions(uow, user.id, reason="password_reset")
        await announce(uow, user.id, "password_reset")
        await self._notices.warn(uow, user.id, "password_changed", tenant_id=None)
        uow.audit("password.reset", actor_id=user.id, tenant_id=None, subject=("user", user.id))
        return AccountNames(user_id=user.id, email=user.email, phone=user.phone)

    async def change(self, actor: Principal, *, current: str, new: str, trace: RequestTrace | None = None) -> None:
        """Replace the caller's password and end every other session.

        Raises WrongPassword, PasswordBreached and Impersonated.
        """
        require_oneself(actor)
        async with self._units(_SCOPE, trace=trace) as uow:
            stored = await uow.session.scalar(select(User.hashed_password).where(User.id == actor.user_id))
        if not (await self._hasher.verify(current, stored)).matches:
            raise WrongPassword
        hashed = await self._new_passwords.hash(new)
        async with self._units(_SCOPE, trace=trace) as uow:
            # Compared once more, so that of two changes at once the later does not win by a password that was replaced.
            user = await uow.session.scalar(
                select(User)
                .where(User.id == actor.user_id, User.hashed_password == stored)
                .with_for_update(key_share=True)
            )
            if user is None:
                raise WrongPassword
            await self._replace(uow, user, hashed)
            ended = await end_sessions(uow, user.id, reason="password_changed", keep=actor.session_id)
            await announce(uow, user.id, "password_changed")
            await self._notices.warn(uow, user.id, "password_changed", tenant_id=actor.tenant_id)
            uow.audit(
                "password.changed",
                actor_id=user.id,
                tenant_id=actor.tenant_id,
                subject=("user", user.id),
                details={"sessions_ended": len(ended)},
            )

    async def _replace(self, uow: UnitOfWork, user: User, hashed: str) -> None:
        user.hashed_password = hashed
        user.updated_at = uow.now
        # A letter that adds an address was perhaps asked for by whoever the password is taken from.
        await void_tokens(uow, user.id, TokenPurpose.PASSWORD_RESET, TokenPurpose.EMAIL_CHANGE)
        # A sign-in that showed the former password must not be finished.
        await uow.session.execute(delete(SignInChallenge).where(SignInChallenge.user_id == user.id))

    def _send_token(self, uow: UnitOfWork, user: User) -> None:
        token = issue_token(uow, user.id, TokenPurpose.PASSWORD_RESET, lifetime=RESET_LIFETIME)
        self._mail.enqueue_letter(
            uow,
            "password_reset",
            recipient=user.shown_email,
            locale=user.locale,
            full_name=user.full_name,
            email=user.shown_email,
            minutes=int(RESET_LIFETIME.total_seconds() // 60),
            link=f"{self._public_url}/reset-password?token={token}",
            token=token,
        )
