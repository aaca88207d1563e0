"""Forgotten passwords: a one-time token by mail, and the new password it allows (contract.md 2.2)."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, update

from core.passwords import PasswordHasher
from core.tokens import new_opaque_token, token_hash
from models.users import OneTimeToken, TokenPurpose, User, UserSession
from services.auth.errors import ResetTokenInvalid
from services.mail import MailService
from services.tenants.members import lock_user
from services.unit_of_work import UnitOfWork

RESET_LIFETIME = timedelta(hours=1)
# Whoever asks again and again must not fill somebody's letter box.
_LETTER_PAUSE = timedelta(minutes=1)


class Passwords:
    """The use cases of somebody who cannot sign in."""

    def __init__(self, *, hasher: PasswordHasher, mail: MailService, public_url: str) -> None:
        self._hasher = hasher
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

    async def reset(self, uow: UnitOfWork, *, token: str, new_password: str) -> None:
        """Set a new password by a letter's token and end every session; raises ResetTokenInvalid."""
        # Hashed before the first statement, so that no connection waits for it.
        hashed = await self._hasher.hash(new_password)
        user_id = await self._consume(uow, token)
        user = await uow.session.scalar(select(User).where(User.id == user_id, User.is_active))
        if user is None:
            raise ResetTokenInvalid
        user.hashed_password = hashed
        user.updated_at = uow.now
        await self._void_other_tokens(uow, user_id)
        await uow.session.execute(
            update(UserSession)
            .where(UserSession.user_id == user_id, UserSession.revoked_at.is_(None))
            .values(revoked_at=uow.now, revoked_reason="password_reset")
        )
        self._mail.enqueue_letter(
            uow,
            "password_changed",
            recipient=user.email,
            locale=user.locale,
            full_name=user.full_name,
            email=user.email,
        )
        uow.audit("password.reset", actor_id=user_id, tenant_id=None, subject=("user", user_id))

    async def _asked_just_now(self, uow: UnitOfWork, user_id: UUID) -> bool:
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
            recipient=user.email,
            locale=user.locale,
            full_name=user.full_name,
            email=user.email,
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

    async def _void_other_tokens(self, uow: UnitOfWork, user_id: UUID) -> None:
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
