"""Letters by SMTP (aiosmtplib), each over a connection of its own."""

import aiosmtplib
import structlog

from providers.mail.contract import Letter, MailNotSent
from providers.mail.message import compose

# The port of SMTP over TLS from the first byte (RFC 8314); on the others TLS starts by command.
_IMPLICIT_TLS_PORT = 465
_TIMEOUT_S = 30.0

logger = structlog.get_logger(__name__)


class SmtpTransport:
    """Hands letters to one mail server; an empty `user` means no login."""

    def __init__(
        self, *, host: str, port: int, user: str = "", password: str = "", starttls: bool = True, sender: str
    ) -> None:
        self._host = host
        self._port = port
        self._user = user
        self._password = password
        self._starttls = starttls
        self._sender = sender

    async def send(self, letter: Letter) -> None:
        """Send one letter; raises MailNotSent, permanent when its recipient or its text is refused for good."""
        implicit_tls = self._port == _IMPLICIT_TLS_PORT
        try:
            await aiosmtplib.send(
                compose(letter, sender=self._sender),
                hostname=self._host,
                port=self._port,
                username=self._user or None,
                password=self._password if self._user else None,
                use_tls=implicit_tls,
                start_tls=self._starttls and not implicit_tls,
                timeout=_TIMEOUT_S,
            )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise MailNotSent(repr(error), permanent=_is_permanent(error)) from error
        logger.info("letter sent", recipient=letter.recipient)


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(refusal.code >= 500 for refusal in error.recipients)
    # A refused login or sender is the operator's to mend, so such letters wait; a broken letter never mends.
    return (isinstance(error, aiosmtplib.SMTPDataError) and error.code >= 500) or isinstance(error, ValueError)
