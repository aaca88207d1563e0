"""A mail server that speaks SMTP (RFC 5321) over TCP and answers as a test tells it to."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Received:
    """One message as it came in."""

    sender: str
    recipients: list[str]
    data: bytes


@dataclass(slots=True)
class FakeSmtpServer:
    """Takes every message unless `replies` names another answer to a command, such as `RCPT: "550 no"`."""

    port: int = 0
    login: tuple[str, str] | None = None
    replies: dict[str, str] = field(default_factory=dict)
    hang_up_after: str = ""
    received: list[Received] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 fake.example.org ESMTP\r\n")
        message = Received("", [], b"")
        while line := (await reader.readline()).decode():
            verb, _, rest = line.strip().partition(" ")
            verb = verb.upper()
            self.commands.append(verb)
            if verb == self.hang_up_after:
                return
            answer = self.replies.get(verb) or self._answer(verb, rest, message)
            writer.write(f"{answer}\r\n".encode())
            if answer.startswith("354"):
                message.data = await self._read_data(reader)
                end = self.replies.get(".", "250 taken")
                if end.startswith("250"):
                    self.received.append(message)
                message = Received("", [], b"")
                writer.write(f"{end}\r\n".encode())
            if verb == "QUIT":
                return

    def _answer(self, verb: str, rest: str, message: Received) -> str:
        if verb == "EHLO":
            features = ["fake.example.org", "SMTPUTF8", "8BITMIME", *(["AUTH PLAIN"] if self.login else [])]
            return "\r\n".join([*(f"250-{name}" for name in features), "250 SIZE 1000000"])
        if verb == "AUTH":
            _, user, password = base64.b64decode(rest.split()[1]).decode().split("\0")
            return "235 welcome" if (user, password) == self.login else "535 wrong user or password"
        if verb == "MAIL":
            message.sender = rest.partition("<")[2].partition(">")[0]
        elif verb == "RCPT":
            message.recipients.append(rest.partition("<")[2].partition(">")[0])
        elif verb == "DATA":
            return "354 go on"
        elif verb == "QUIT":
            return "221 bye"
        return "250 fine"

    async def _read_data(self, reader: asyncio.StreamReader) -> bytes:
        lines = []
        while (line := await reader.readline()) != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return b"".join(lines)


@asynccontextmanager
async def smtp_server(**behaviour: object) -> AsyncIterator[FakeSmtpServer]:
    """Run the fake on a free local port."""
    fake = FakeSmtpServer(**behaviour)  # type: ignore[arg-type]
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        await server.wait_closed()
