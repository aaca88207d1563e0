"""The sender of development: the code is where the server was started, and not in its log."""

import io

from structlog.testing import capture_logs

from providers.messengers.console import ConsoleSender
from tests.providers.messengers.harness import CODE, PHONE, message


async def test_the_code_is_written_and_not_logged() -> None:
    stream = io.StringIO()
    sender = ConsoleSender(stream)
    with capture_logs() as logs:
        sent = await sender.send(message())
        await sender.aclose()

    assert stream.getvalue() == f"\n    Code for {PHONE}: {CODE}\n\n"
    assert sent.reference == str(message().id)
    assert logs == []


def test_production_can_tell_it_apart() -> None:
    sender = ConsoleSender(io.StringIO())
    assert sender.name == "console"
    assert sender.capabilities.development_only
