"""Passwords: changed by whoever knows the one that is, or replaced by a token that came by mail (contract.md 2.2)."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, select, update

from core.passwords import PasswordHasher
from core.tokens import new_opaque_token, token_hash
from models.second_factors import SignInChallenge
from models.users import OneTimeToken, TokenPurpose, User
from services.auth.announcer import announce
from services.auth.endings import end_sessions
from services.auth.errors import ResetTokenInvalid, WrongPassword
from services.auth.new_passwords import NewPasswords
from services.auth.notices import SecurityNotices
from services.identity import Principal, require_oneself
from services.mail import MailService
from services.tenants.members import lock_user
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

RESET_LIFETIME = timedelta(hours=1)
# Whoever asks again and again must not fill somebody's letter box.
_LETTER_PAUSE = timedelta(minutes=1)
_SCOPE = PlatformScope("a password belongs to a person, not to a tenant")


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
        if user is not None and not await self._asked_just_now(uow, user.id):
            self._send_token(uow, user)

    async def reset(self, *, token: str, new_password: str, trace: RequestTrace | None = None) -> None:
        """Set a new password by a letter's token and end every session.

        Raises ResetTokenInvalid and PasswordBreached.
        """
        hashed = await self._new_passwords.hash(new_password)
        async with self._units(_SCOPE, trace=trace) as uow:
            user_id = await self._consume(uow, token)
            user = await uow.session.scalar(select(User).where(User.id == user_id, User.is_active))
            if user is None:
                raise ResetTokenInvalid
            await self.replace(uow, user, hashed)

    async def replace(self, uow: UnitOfWork, user: User, hashed: str) -> None:
        """Put another password in the place of one that was forgotten and end every session.

        The user is locked and has proved who they are by other means than a password.
        """
        await self._replace(uow, user, hashed)
        await end_sessions(uow, user.id, reason="password_reset")
        await announce(uow, user.id, "password_reset")
        await self._notices.warn(uow, user.id, "password_changed", tenant_id=None)
        uow.audit("password.reset", actor_id=user.id, tenant_id=None, subject=("user", user.id))

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
        await self._void_tokens(uow, user.id)
        # A sign-in that showed the former password must not be finished.
        await uow.session.execute(delete(SignInChallenge).where(SignInChallenge.user_id == user.id))

    async def _asked_just_now(self, uow: UnitOfWork, user_id: UUID) -> bool:
        # Of a crowd that asks at once, each but the first finds the first one's letter.
        await lock_user(uow, user_id)
        recent = await uow.session.scalar(
            select(OneTimeToken.id).where(
                OneTimeToken.user_id == user_id,
                OneTimeToken.purpose == TokenPurpose.PASSWORD_RESET,
                OneTimeToken.used_at.is_(None),
                OneTimeToken.created_at > uow.now - _LETTER_PAUSE,
            )
        )
        return recent is not None

    def _send_token(self, uow: UnitOfWork, user: User) -> None:
        token = new_opaque_token()
        uow.session.add(
            OneTimeToken(
                user_id=user.id,
                purpose=TokenPurpose.PASSWORD_RESET,
                token_hash=token_hash(token),
                created_at=uow.now,
                expires_at=uow.now + RESET_LIFETIME,
            )
        )
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

    async def _consume(self, uow: UnitOfWork, token: str) -> UUID:
        mine = OneTimeToken.token_hash == token_hash(token)
        user_id = await uow.session.scalar(select(OneTimeToken.user_id).where(mine))
        if user_id is None:
            raise ResetTokenInvalid
        # The user first and the tokens after: two letters used at once would otherwise wait for each other for ever.
        await lock_user(uow, user_id)
        # One conditional statement: of two that bring the same token at once, only one finds it unused.
        consumed = await uow.session.scalars(
            update(OneTimeToken)
            .where(
                mine,
                OneTimeToken.purpose == TokenPurpose.PASSWORD_RESET,
                OneTimeToken.used_at.is_(None),
                OneTimeToken.expires_at > uow.now,
            )
            .values(used_at=uow.now)
            .returning(OneTimeToken.id)
        )
        if consumed.one_or_none() is None:
            raise ResetTokenInvalid
        return user_id

    async def _void_tokens(self, uow: UnitOfWork, user_id: UUID) -> None:
        # An earlier letter, perhaps read by somebody else, must not undo what was just done.
        await uow.session.execute(
            update(OneTimeToken)
            .where(
                OneTimeToken.user_id == user_id,
                OneTimeToken.purpose == TokenPurpose.PASSWORD_RESET,
                OneTimeToken.used_at.is_(None),
            )
            .values(used_at=uow.now)
        )
