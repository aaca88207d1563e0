"""Telegram Gateway: one fee and one message whatever answers are lost, and reports that prove where they come from."""

import json
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from providers.messengers import (
    BotEvent,
    DeliveryReport,
    DeliveryStatus,
    MessengerUnavailable,
    RecipientUnreachable,
    UnreachableBecause,
    UpdateNotProven,
    UpdateUnreadable,
)
from providers.messengers.telegram_gateway import TelegramGateway
from tests.fakes.messenger_http import Fault
from tests.fakes.telegram_gateway import TOKEN, FakeTelegramGateway
from tests.providers.messengers.harness import CODE, PHONE, GatewayHarness, Webhook, message

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
async def account(gateway: GatewayHarness) -> FakeTelegramGateway:
    gateway.fake.accounts.add(PHONE)
    return gateway.fake


async def test_what_is_sent(account: FakeTelegramGateway, gateway: GatewayHarness) -> None:
    async with aclosing(gateway.sender()) as sender:
        sent = await sender.send(message())

    assert account.methods == ["checkSendAbility", "sendVerificationMessage"]
    assert account.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert account.sent == [
        {
            "phone_number": PHONE,
            "request_id": sent.reference,
            "code": CODE,
            "ttl": 300,
            "payload": "0198c0de-0000-7000-8000-000000000001",
        }
    ]
    assert account.balance == pytest.approx(9.99)


async def test_options_are_handed_on(account: FakeTelegramGateway) -> None:
    adapter = TelegramGateway(
        token=TOKEN,
        api_base=account.base_url + "/",
        sender_username="erpmax",
        callback_url="https://api.example.org/telegram/reports",
    )
    async with aclosing(adapter):
        await adapter.send(message())

    assert account.sent[0]["sender_username"] == "erpmax"
    assert account.sent[0]["callback_url"] == "https://api.example.org/telegram/reports"


@pytest.mark.parametrize(("lifetime_s", "ttl"), [(1, 30), (30, 30), (300, 300), (3600, 3600), (100_000, 3600)])
async def test_a_life_that_the_api_does_not_take_is_bounded(
    account: FakeTelegramGateway, gateway: GatewayHarness, lifetime_s: int, ttl: int
) -> None:
    async with aclosing(gateway.sender()) as sender:
        await sender.send(message(lifetime_s=lifetime_s))

    assert account.sent[0]["ttl"] == ttl


async def test_a_number_without_telegram_costs_nothing(gateway: GatewayHarness) -> None:
    async with aclosing(gateway.sender()) as sender:
        with pytest.raises(RecipientUnreachable) as refusal:
            await sender.send(message())

    assert refusal.value.reason is UnreachableBecause.NO_ACCOUNT
    assert refusal.value.details == {"reason": "no_account"}
    assert gateway.fake.methods == ["checkSendAbility"]
    assert gateway.fake.balance == 10.0


@pytest.mark.parametrize("fault", [Fault(cut="after"), Fault(cut="middle")], ids=["no answer", "half an answer"])
async def test_a_lost_answer_leads_to_one_message_and_one_fee(
    account: FakeTelegramGateway, gateway: GatewayHarness, fault: Fault
) -> None:
    account.faults.extend([Fault(), fault])
    async with aclosing(gateway.sender()) as sender:
        sent = await sender.send(message())

    assert account.methods == ["checkSendAbility", "sendVerificationMessage", "sendVerificationMessage"]
    assert [(entry["request_id"], entry["code"]) for entry in account.sent] == [(sent.reference, CODE)]
    assert account.balance == pytest.approx(9.99)


@pytest.mark.parametrize("fault", [Fault(cut="before"), Fault(status=502)], ids=["cut", "502"])
async def test_a_lost_request_is_made_good(account: FakeTelegramGateway, gateway: GatewayHarness, fault: Fault) -> None:
    account.faults.extend([Fault(), fault])
    async with aclosing(gateway.sender()) as sender:
        await sender.send(message())

    assert len(account.sent) == 1
    assert account.balance == pytest.approx(9.99)


async def test_a_second_loss_is_given_up(account: FakeTelegramGateway, gateway: GatewayHarness) -> None:
    account.faults.extend([Fault(), Fault(cut="before"), Fault(cut="before")])
    async with aclosing(gateway.sender()) as sender:
        with pytest.raises(MessengerUnavailable) as refusal:
            await sender.send(message())

    assert refusal.value.retryable
    assert len(account.requests) == 3


@pytest.mark.parametrize(
    "error", ["BALANCE_NOT_ENOUGH", "SENDER_NOT_VERIFIED", "SOMETHING_NEW", "", "no name +79991234567"]
)
@pytest.mark.parametrize("method", ["checkSendAbility", "sendVerificationMessage"])
async def test_other_refusals_are_for_the_operator(
    account: FakeTelegramGateway, gateway: GatewayHarness, method: str, error: str
) -> None:
    account.refusals[method] = error
    async with aclosing(gateway.sender()) as sender:
        with pytest.raises(MessengerUnavailable) as refusal:
            await sender.send(message())

    assert not refusal.value.retryable
    assert account.sent == []


@pytest.mark.parametrize("result", ["{}", '{"request_id": 5}', '{"request_id": ""}', '{"request_id": null}'])
async def test_a_check_without_a_request_id_is_nonsense(
    account: FakeTelegramGateway, gateway: GatewayHarness, result: str
) -> None:
    account.faults.append(Fault(status=200, body=f'{{"ok": true, "result": {result}}}'))
    async with aclosing(gateway.sender()) as sender:
        with pytest.raises(MessengerUnavailable) as refusal:
            await sender.send(message())

    assert refusal.value.retryable
    assert account.methods == ["checkSendAbility"]


class TestReports:
    """What Telegram tells later."""

    @pytest.mark.parametrize("status", ["sent", "delivered", "read", "expired", "revoked"])
    async def test_a_report_arrives(self, gateway: GatewayHarness, status: str) -> None:
        fake = FakeTelegramGateway(PHONE, clock=NOW.timestamp)
        seen: list[DeliveryReport | None] = []
        async with fake, aclosing(TelegramGateway(token=TOKEN, api_base=fake.base_url)) as adapter:

            def read(body: bytes, headers: Mapping[str, str]) -> tuple[BotEvent, ...]:
                seen.append(adapter.read_report(body=body, headers=headers, now=NOW))
                return ()

            sent = await adapter.send(message())
            async with Webhook(read) as door:
                assert await fake.deliver_report(fake.report(sent.reference, status), door.url) == 200

        assert seen == [
            DeliveryReport(message_id=message().id, reference=sent.reference, status=DeliveryStatus(status), at=NOW)
        ]

    @pytest.fixture
    def adapter(self) -> TelegramGateway:
        return TelegramGateway(token=TOKEN)

    def signed(self, body: bytes, *, at: datetime = NOW, token: str = TOKEN) -> dict[str, str]:
        return FakeTelegramGateway().sign(body, at=int(at.timestamp()), token=token)

    async def test_the_names_of_headers_may_be_written_otherwise(self, adapter: TelegramGateway) -> None:
        body = b'{"request_id": "r1", "delivery_status": {"status": "read", "updated_at": 1777636800}}'
        headers = {name.lower(): value for name, value in self.signed(body).items()}
        report = adapter.read_report(body=body, headers=headers, now=NOW)
        assert report is not None
        assert (report.reference, report.message_id, report.at) == ("r1", None, NOW)

    @pytest.mark.parametrize("seconds", [-301, 301])
    async def test_a_report_of_another_time_is_refused(self, adapter: TelegramGateway, seconds: int) -> None:
        headers = self.signed(b"{}", at=NOW + timedelta(seconds=seconds))
        with pytest.raises(UpdateNotProven):
            adapter.read_report(body=b"{}", headers=headers, now=NOW)

    async def test_a_forged_report_is_refused(self, adapter: TelegramGateway) -> None:
        good = self.signed(b"{}")
        forgeries = [
            {},
            self.signed(b"{} "),
            self.signed(b"{}", token="another"),
            {**good, "X-Request-Timestamp": str(int(NOW.timestamp()) + 1)},
            {"X-Request-Signature": good["X-Request-Signature"]},
            {**good, "X-Request-Signature": ""},
            {**good, "X-Request-Signature": "ё" * 64},
            {**good, "X-Request-Timestamp": "\ud800"},
        ]
        for headers in forgeries:
            with pytest.raises(UpdateNotProven):
                adapter.read_report(body=b"{}", headers=headers, now=NOW)

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b"{}", b"\xff", b'{"request_id": 5}', b'{"request_id": "r", "payload": 1}']
    )
    async def test_a_signed_body_that_is_no_report_is_refused(self, adapter: TelegramGateway, body: bytes) -> None:
        with pytest.raises(UpdateUnreadable):
            adapter.read_report(body=body, headers=self.signed(body), now=NOW)

    async def test_a_time_beyond_all_calendars_is_refused(self, adapter: TelegramGateway) -> None:
        body = json.dumps({"request_id": "r", "delivery_status": {"status": "read", "updated_at": 10**18}}).encode()
        with pytest.raises(UpdateUnreadable):
            adapter.read_report(body=body, headers=self.signed(body), now=NOW)

    @pytest.mark.parametrize(
        "body", [b'{"request_id": "r"}', b'{"request_id": "r", "delivery_status": {"status": "new", "updated_at": 1}}']
    )
    async def test_what_says_nothing_of_delivery_is_no_business_of_ours(
        self, adapter: TelegramGateway, body: bytes
    ) -> None:
        assert adapter.read_report(body=body, headers=self.signed(body), now=NOW) is None
