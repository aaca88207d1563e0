"""The outbox of development: one file per letter, whole, readable by nobody else, its text in no log."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from providers.mail import Letter, MailNotSent, OutboxTransport


def letter() -> Letter:
    return Letter(
        id=uuid4(),
        recipient="somebody@example.org",
        subject="A subject",
        body="a secret token\n",
        written_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


async def test_a_letter_becomes_one_file(tmp_path: Path) -> None:
    sent, folder = letter(), tmp_path / "data" / "outbox"
    outbox = OutboxTransport(folder, sender="no-reply@example.org")

    with capture_logs() as logs:
        await outbox.send(sent)
        await outbox.send(sent)

    (file,) = folder.iterdir()
    assert file.name == f"{sent.id}.eml"
    assert file.stat().st_mode & 0o077 == 0
    message = message_from_bytes(file.read_bytes(), policy=default)
    assert (message["To"], message["Subject"]) == (sent.recipient, sent.subject)
    assert message.get_content().replace("\r\n", "\n") == sent.body
    assert [entry.get("recipient") for entry in logs] == [sent.recipient, sent.recipient]
    assert [entry.get("path") for entry in logs] == [str(folder / f"{sent.id}.eml")] * 2
    assert "secret" not in repr(logs)
    assert sent.subject not in repr(logs)


async def test_a_folder_that_cannot_be_written_to_is_worth_another_try(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file stands here")

    with pytest.raises(MailNotSent) as refusal:
        await OutboxTransport(tmp_path / "outbox", sender="no-reply@example.org").send(letter())

    assert not refusal.value.permanent
