"""A transport for development: letters become `.eml` files that any mail reader opens."""

import asyncio
from pathlib import Path

import structlog

from providers.mail.contract import Letter, MailNotSent
from providers.mail.message import compose

logger = structlog.get_logger(__name__)


class OutboxTransport:
    """Writes each letter to `folder` as `<id>.eml`; a letter sent twice is one file."""

    def __init__(self, folder: Path, *, sender: str) -> None:
        self._folder = folder
        self._sender = sender

    async def send(self, letter: Letter) -> None:
        """Write the file; raises MailNotSent when the folder cannot be written to."""
        try:
            path = await asyncio.to_thread(self._write, letter)
        except OSError as error:
            raise MailNotSent(repr(error), permanent=False) from error
        # The letter may hold a one-time token, so nothing but its recipient is logged, and where the rest is.
        logger.info("letter written to the outbox", recipient=letter.recipient, path=str(path))

    def _write(self, letter: Letter) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Renaming makes the file appear whole or not at all to whoever watches the folder.
        unfinished = self._folder / f".{letter.id}.part"
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(bytes(compose(letter, sender=self._sender)))
        return unfinished.replace(self._folder / f"{letter.id}.eml").absolute()
