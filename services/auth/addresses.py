"""E-mail addresses of accounts: confirmed by a letter's token, changed, added, and taken away.

An address counts as the account's from the moment it is confirmed, so that nobody gets one by typing it. Only the
first one, with which somebody has signed up, counts before; `services.verification` says for what.
"""

from datetime import timedelta

from sqlalchemy import select

from core.errors import DomainError, ErrorKind, InvalidInput
from models.users import TokenPurpose, User
from services.auth.accounts import lock_account, write_account
from services.auth.announcer import announce
from services.auth.errors import EmailAbsent, EmailTaken, EmailTokenInvalid, LastWayIn
from services.auth.letter_tokens import issue_token, use_token, void_tokens, was_sent_just_now
from services.auth.new_passwords import NewPasswords
from services.auth.notices import SecurityNotices
from services.identity import Principal
from services.mail import MailService
from services.step_up import require_recent_authentication
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

LIFETIME = timedelta(days=3)
_SCOPE = PlatformScope("an address belongs to a person, not to a tenant")
_LETTERS = {TokenPurpose.EMAIL_VERIFICATION: "email_verification", TokenPurpose.EMAIL_CHANGE: "email_change"}


class PasswordPresent(DomainError):
    """The account has a password, which is changed elsewhere and by whoever knows it."""

    kind = ErrorKind.CONFLICT
    code = "PASSWORD_PRESENT"
    message = "This account has a password already"


class EmailAddresses:
    """The use cases around a user's address; all need a PlatformScope."""

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        new_passwords: NewPasswords,
        mail: MailService,
        notices: SecurityNotices,
        public_url: str,
    ) -> None:
        self._units = units
        self._new_passwords = new_passwords
        self._mail = mail
        self._notices = notices
        self._public_url = public_url

    def welcome(self, uow: UnitOfWork, user: User) -> None:
        """Send whoever has just signed up the letter that confirms their address."""
        self._send(uow, user, TokenPurpose.EMAIL_VERIFICATION, email=user.shown_email)

    async def resend(self, uow: UnitOfWork, *, email: str) -> None:
        """Send that letter again if the address still has to be confirmed; the caller cannot tell whether it has."""
        user = await uow.session.scalar(
            select(User).where(User.has_email(email), User.is_active, User.email_verified_at.is_(None))
        )
        # An audit row is written either way, so that the work of a commit tells nothing either.
        uow.audit(
            "email.verification_requested",
            actor_id=user.id if user else None,
            tenant_id=None,
            subject=("user", user.id if user else "unknown"),
        )
        kind = TokenPurpose.EMAIL_VERIFICATION
        if user is not None and not await was_sent_just_now(uow, user.id, kind):
            self._send(uow, user, kind, email=user.shown_email)

    async def confirm(self, uow: UnitOfWork, *, token: str) -> None:
        """Take the token of a letter: the address it went to is the user's and proven from now on.

        Raises EmailTokenInvalid, and EmailTaken if somebody else has the address meanwhile.
        """
        used = await use_token(uow, token, *_LETTERS, lock=lock_account)
        user = await uow.session.get(User, used.user_id) if used is not None else None
        if used is None or used.email is None or user is None or not user.is_active:
            raise EmailTokenInvalid
        if used.purpose is TokenPurpose.EMAIL_CHANGE:
            await self._replace(uow, user, used.email)
        elif user.shown_email.lower() != used.email.lower():
            # The account has another address by now; what this letter proves is of no use to it.
            raise EmailTokenInvalid
        user.email_verified_at = uow.now
        await announce(uow, user.id, "email_verified")
        uow.audit("email.verified", actor_id=user.id, tenant_id=None, subject=("user", user.id))

    async def change(
        self, actor: Principal, *, email: str, password: str | None = None, trace: RequestTrace | None = None
    ) -> None:
        """Send a letter to an address which, once it is confirmed, is the caller's, in place of any other.

        Whoever has no password yet chooses one with it. The answer is the same for an address that somebody else has;
        its owner gets a letter that says so. Raises StepUpRequired, Impersonated, PasswordPresent, PasswordBreached,
        and InvalidInput when a password is needed and not given.
        """
        hashed = await self._new_passwords.hash(password) if password is not None else None
        async with self._units(_SCOPE, trace=trace) as uow:
            await require_recent_authentication(uow, actor)
            user = await lock_account(uow, actor.user_id)
            await self._settle_password(uow, actor, user, hashed)
            uow.audit(
                "email.change_requested",
                actor_id=user.id,
                tenant_id=actor.tenant_id,
                subject=("user", user.id),
                details={"to": email},
            )
            if await was_sent_just_now(uow, user.id, TokenPurpose.EMAIL_CHANGE, email=email):
                return
            # Of two letters that wait, only the later one may be meant: the first address was perhaps a slip.
            await void_tokens(uow, user.id, TokenPurpose.EMAIL_CHANGE)
            taken = await uow.session.scalar(select(User).where(User.has_email(email), User.id != user.id))
            self._send(uow, user, TokenPurpose.EMAIL_CHANGE, email=email, to=taken)

    async def remove(self, uow: UnitOfWork, actor: Principal) -> None:
        """Take the address from the caller's account, which is then known by its phone alone.

        Raises StepUpRequired, Impersonated, LastWayIn and EmailAbsent.
        """
        await require_recent_authentication(uow, actor)
        user = await lock_account(uow, actor.user_id)
        if user.phone is None:
            raise LastWayIn
        if user.email is None:
            raise EmailAbsent
        former = user.email
        user.email = user.email_verified_at = None
        user.updated_at = uow.now
        await void_tokens(uow, user.id, *TokenPurpose)
        await announce(uow, user.id, "email_removed")
        await self._notices.warn(uow, user.id, "email_removed", tenant_id=actor.tenant_id, recipient=former)
        uow.audit(
            "user.email_removed",
            actor_id=user.id,
            tenant_id=actor.tenant_id,
            subject=("user", user.id),
            details={"from": former},
        )

    async def _replace(self, uow: UnitOfWork, user: User, email: str) -> None:
        taken = await uow.session.scalar(select(User.id).where(User.has_email(email), User.id != user.id))
        if taken is not None:
            raise EmailTaken
        former, user.email = user.email, email
        user.updated_at = uow.now
        await write_account(uow)
        # Letters to the former address may have been read by whoever reads it now.
        await void_tokens(uow, user.id, *TokenPurpose)
        await announce(uow, user.id, "email_changed")
        if former is not None:
            await self._notices.warn(uow, user.id, "email_changed", tenant_id=None, recipient=former)
        uow.audit(
            "user.email_changed",
            actor_id=user.id,
            tenant_id=None,
            subject=("user", user.id),
            details={"from": former, "to": email},
        )

    async def _settle_password(self, uow: UnitOfWork, actor: Principal, user: User, hashed: str | None) -> None:
        if user.hashed_password is None and hashed is None:
            missing = {"field": "body -> password", "message": "Field required", "type": "missing"}
            raise InvalidInput(details={"errors": [missing]})
        if user.hashed_password is not None and hashed is not None:
            raise PasswordPresent
        if hashed is None:
            return
        user.hashed_password, user.updated_at = hashed, uow.now
        # It opens the account by its phone from now on, whatever becomes of the address.
        await announce(uow, user.id, "password_changed")
        await self._notices.warn(uow, user.id, "password_set", tenant_id=actor.tenant_id)
        uow.audit("password.set", actor_id=user.id, tenant_id=actor.tenant_id, subject=("user", user.id))

    def _send(self, uow: UnitOfWork, user: User, purpose: TokenPurpose, *, email: str, to: User | None = None) -> None:
        """Write the letter of a token; if the address is the one of `to`, they are told that, and get no token."""
        token = issue_token(uow, user.id, purpose, lifetime=LIFETIME, email=email)
        if to is not None:
            self._mail.enqueue_letter(
                uow, "email_taken", recipient=email, locale=to.locale, full_name=to.full_name, email=email
            )
            return
        self._mail.enqueue_letter(
            uow,
            _LETTERS[purpose],
            recipient=email,
            locale=user.locale,
            full_name=user.full_name,
            email=email,
            days=LIFETIME.days,
            link=f"{self._public_url}/verify-email?token={token}",
            token=token,
        )
