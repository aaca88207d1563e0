"""Letters as RFC 5322 messages."""

from email.message import EmailMessage
from email.policy import SMTPUTF8
from email.utils import format_datetime, parseaddr

from providers.mail.contract import Letter


def compose(letter: Letter, *, sender: str) -> EmailMessage:
    """Build the message; `sender` is `Name <address>` or an address. Raises ValueError for a broken header."""
    message = EmailMessage(policy=SMTPUTF8)
    message["From"] = sender
    message["To"] = letter.recipient
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(letter.written_at)
    # The same id at every attempt, so that a mail server or reader can drop a second copy.
    message["Message-ID"] = f"<{letter.id}@{_domain(sender)}>"
    # Nobody's holiday notice should answer a machine (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.body)
    return message


def _domain(sender: str) -> str:
    return parseaddr(sender)[1].rpartition("@")[2] or "localhost"
