"""A sender for development: codes appear where the server was started, and nowhere else."""

from typing import Final, TextIO

from providers.messengers.contract import CodeMessage, CodeSent, SenderCapabilities

SENDER: Final = "console"


class ConsoleSender:
    """Writes each code to `stream`, past the log, which may be kept or shipped elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def name(self) -> str:
        return SENDER

    @property
    def capabilities(self) -> SenderCapabilities:
        return SenderCapabilities(reach="phone", development_only=True)

    async def send(self, message: CodeMessage) -> CodeSent:
        """See `CodeSender.send`."""
        self._stream.write(f"\n    Code for {message.phone}: {message.code}\n\n")
        self._stream.flush()
        return CodeSent(reference=str(message.id))

    async def aclose(self) -> None:
        """See `CodeSender.aclose`."""
