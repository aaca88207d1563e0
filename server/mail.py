"""The wiring of mail: by SMTP, or into a folder where no server is named."""

from providers.mail.contract import MailTransport
from providers.mail.outbox import OutboxTransport
from providers.mail.smtp import SmtpTransport
from server.settings import Settings
from services.mail import MailService
from services.unit_of_work import UnitOfWorkFactory


def build_mail(settings: Settings, units: UnitOfWorkFactory) -> MailService:
    """Build the service of mail."""
    return MailService(units=units, transport=_transport(settings))


def _transport(settings: Settings) -> MailTransport:
    if not settings.smtp_host:
        return OutboxTransport(settings.data_dir / "outbox", sender=settings.mail_from)
    return SmtpTransport(
        host=settings.smtp_host,
        port=settings.smtp_port,
        user=settings.smtp_user,
        password=settings.smtp_password.get_secret_value(),
        starttls=settings.smtp_starttls,
        sender=settings.mail_from,
    )
