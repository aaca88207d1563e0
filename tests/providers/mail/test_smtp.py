"""Letters over real SMTP: what arrives, and which refusals are worth another try."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from uuid import uuid4

import pytest

from providers.mail import Letter, MailNotSent, SmtpTransport
from tests.fakes.smtp_server import FakeSmtpServer, smtp_server
from tests.support.stores import free_port

SENDER = "ERPMax Orchestrator <no-reply@example.org>"


def letter(recipient: str = "somebody@example.org") -> Letter:
    return Letter(
        id=uuid4(),
        recipient=recipient,
        subject="Восстановление пароля",
        body="Здравствуйте!\n.\nA line with a dot alone is above.\n",
        written_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def transport(server: FakeSmtpServer, *, user: str = "", password: str = "", starttls: bool = False) -> SmtpTransport:
    return SmtpTransport(
        host="127.0.0.1", port=server.port, user=user, password=password, starttls=starttls, sender=SENDER
    )


async def test_a_letter_arrives_whole() -> None:
    sent = letter()
    async with smtp_server() as server:
        await transport(server).send(sent)

    (received,) = server.received
    assert (received.sender, received.recipients) == ("no-reply@example.org", ["somebody@example.org"])
    message = message_from_bytes(received.data, policy=default)
    assert message["From"] == SENDER
    assert message["To"] == "somebody@example.org"
    assert message["Subject"] == "Восстановление пароля"
    assert message["Date"] == "Fri, 02 Jan 2026 03:04:05 +0000"
    assert message["Message-ID"] == f"<{sent.id}@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content().replace("\r\n", "\n") == sent.body


async def test_an_address_in_another_script_is_reached() -> None:
    async with smtp_server() as server:
        await transport(server).send(letter("иван@пример.рф"))

    assert server.received[0].recipients == ["иван@пример.рф"]


async def test_the_user_signs_in() -> None:
    async with smtp_server(login=("robot", "hunter2")) as server:
        await transport(server, user="robot", password="hunter2").send(letter())
        assert len(server.received) == 1
        with pytest.raises(MailNotSent) as refusal:
            await transport(server, user="robot", password="wrong password").send(letter())

    assert not refusal.value.permanent, "the operator can mend a login"
    assert "wrong password" not in str(refusal.value)


@pytest.mark.parametrize(
    ("replies", "worth_a_retry"),
    [
        ({"RCPT": "550 no such user"}, False),
        ({"RCPT": "451 greylisted"}, True),
        ({".": "554 looks like spam"}, False),
        ({".": "452 disk full"}, True),
        ({"MAIL": "550 sender not allowed"}, True),
        ({"EHLO": "421 going down", "HELO": "421 going down"}, True),
    ],
    ids=["unknown recipient", "greylisted", "refused text", "disk full", "refused sender", "going down"],
)
async def test_a_refusal_tells_whether_to_try_again(replies: dict[str, str], *, worth_a_retry: bool) -> None:
    async with smtp_server(replies=replies) as server:
        with pytest.raises(MailNotSent) as refusal:
            await transport(server).send(letter())

    assert refusal.value.permanent is not worth_a_retry
    assert server.received == []


async def test_a_server_that_hangs_up_or_is_away_is_worth_another_try() -> None:
    async with smtp_server(hang_up_after="DATA") as server:
        with pytest.raises(MailNotSent) as cut:
            await transport(server).send(letter())
    with pytest.raises(MailNotSent) as away:
        await SmtpTransport(host="127.0.0.1", port=free_port(), starttls=False, sender=SENDER).send(letter())

    assert not cut.value.permanent
    assert not away.value.permanent


async def test_nothing_is_said_in_the_clear_when_tls_was_asked_for() -> None:
    async with smtp_server(login=("robot", "hunter2")) as server:
        with pytest.raises(MailNotSent) as refusal:
            await transport(server, user="robot", password="hunter2", starttls=True).send(letter())

    assert not refusal.value.permanent
    assert "AUTH" not in server.commands
    assert "MAIL" not in server.commands
