"""Sign-ups that wait for a letter, where nobody is told who has an account (docs/adr/0024).

The answer to a known and an unknown address is the same, and so is the work: a row, a letter, an entry of the audit.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select

from core.tokens import new_opaque_token, token_hash
from models.users import PendingRegistration, User
from services.auth.errors import RegistrationTokenInvalid
from services.mail import MailService
from services.unit_of_work import UnitOfWork

LIFETIME = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignUp:
    """What somebody fills in to sign up; `locale` is a language of the catalogue."""

    email: str
    password: str
    full_name: str
    company_name: str
    locale: str


class SignUps:
    """Keeps sign-ups until their letter comes back; all need a PlatformScope."""

    def __init__(self, *, mail: MailService, public_url: str) -> None:
        self._mail = mail
        self._public_url = public_url

    async def put_off(self, uow: UnitOfWork, form: SignUp, hashed: str) -> None:
        """Write the letter that finishes a sign-up, or the one that says that the address has an account."""
        user = await uow.session.scalar(select(User).where(User.has_email(form.email)))
        token = new_opaque_token()
        uow.session.add(
            PendingRegistration(
                token_hash=token_hash(token),
                email=form.email,
                hashed_password=hashed,
                full_name=form.full_name,
                company_name=form.company_name,
                locale=form.locale,
                created_at=uow.now,
                expires_at=uow.now + LIFETIME,
            )
        )
        # Nobody has proved to be anybody, so that the entry stands in the same chain whoever is meant.
        uow.audit(
            "user.registration_requested",
            actor_id=None,
            tenant_id=None,
            subject=("user", user.id if user else "unknown"),
        )
        if user is None:
            self._send_token(uow, form, token)
        else:
            self._send_reminder(uow, user)

    async def take(self, uow: UnitOfWork, token: str) -> PendingRegistration:
        """Return the sign-up of a letter's token, which is used up by that. Raises RegistrationTokenInvalid."""
        # One statement: of two that bring the same token at once, the later waits and finds nothing.
        waiting: PendingRegistration | None = await uow.session.scalar(
            delete(PendingRegistration)
            .where(PendingRegistration.token_hash == token_hash(token), PendingRegistration.expires_at > uow.now)
            .returning(PendingRegistration)
        )
        if waiting is None:
            raise RegistrationTokenInvalid
        return waiting

    async def prune(self, uow: UnitOfWork) -> None:
        """Forget sign-ups whose letter came back too late or never."""
        await uow.session.execute(delete(PendingRegistration).where(PendingRegistration.expires_at <= uow.now))

    def _send_token(self, uow: UnitOfWork, form: SignUp, token: str) -> None:
        self._mail.enqueue_letter(
            uow,
            "registration",
            recipient=form.email,
            locale=form.locale,
            full_name=form.full_name,
            email=form.email,
            company=form.company_name,
            hours=int(LIFETIME.total_seconds() // 3600),
            link=f"{self._public_url}/finish-registration?token={token}",
            token=token,
        )

    def _send_reminder(self, uow: UnitOfWork, user: User) -> None:
        self._mail.enqueue_letter(
            uow,
            "registration_known",
            recipient=user.shown_email,
            locale=user.locale,
            full_name=user.full_name,
            email=user.shown_email,
            link=self._public_url,
        )
