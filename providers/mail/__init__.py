"""Letters leave the house here: by SMTP, or as files for development."""

from providers.mail.contract import Letter, MailNotSent, MailTransport
from providers.mail.outbox import OutboxTransport
from providers.mail.smtp import SmtpTransport

__all__ = ["Letter", "MailNotSent", "MailTransport", "OutboxTransport", "SmtpTransport"]
