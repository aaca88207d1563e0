"""The sandbox beyond the contract suite: its page's address, its events, and what outlives a restart."""

from datetime import timedelta
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from core import json
from core.errors import ErrorKind
from providers.payments import (
    BadPayload,
    CheckoutCreated,
    CheckoutFailed,
    CheckoutPaid,
    PaymentStatus,
    ProviderRejected,
    VerifiedEvent,
)
from providers.payments.sandbox import SIGNATURE_HEADER, TOKEN_PARAMETER, SandboxProvider
from providers.payments.sandbox_events import declined_event, expired_event, paid_event
from providers.payments.sandbox_session import SandboxSessionUnknown
from tests.providers.payments.harness import NOW, FixedClock, SandboxHarness, invoice_request, request


def verified(sandbox: SandboxHarness, body: bytes) -> VerifiedEvent:
    return sandbox.provider.verify(body=body, headers=sandbox.headers(body), now=NOW)


class TestPage:
    """What the hosted page learns from its address."""

    async def test_shows_the_purchase(self, sandbox: SandboxHarness) -> None:
        asked = request(amount="49.90", currency="eur")

        session = sandbox.open(await sandbox.provider.create_checkout(asked))

        assert (session.plan_name, session.currency) == (asked.plan_name, "EUR")
        assert str(session.amount) == "49.90"
        assert (session.success_url, session.cancel_url) == (asked.success_url, asked.cancel_url)
        assert (session.customer_email, session.purchase.checkout_id) == (asked.customer_email, asked.checkout_id)
        assert session.expires_at == NOW + timedelta(hours=24)

    async def test_outlives_a_restart(self, sandbox: SandboxHarness) -> None:
        created = await sandbox.provider.create_checkout(request())
        restarted = SandboxProvider("a secret of development", "http://localhost:8000", clock=FixedClock())

        session = restarted.open_session(created.session_id, _token(created.url))

        body = paid_event(session, at=NOW)
        headers = {SIGNATURE_HEADER: restarted.sign(body, NOW)}
        assert sandbox.provider.verify(body=body, headers=headers, now=NOW).type == "checkout.paid"

    async def test_cannot_be_guessed_or_changed(self, sandbox: SandboxHarness) -> None:
        first = await sandbox.provider.create_checkout(request())
        second = await sandbox.provider.create_checkout(request())
        token = _token(first.url)
        content, _, seal = token.partition(".")
        forged = [
            (second.session_id, token),
            ("sbx_cs_" + uuid4().hex + "0" * 32, token),
            (first.session_id, content + "." + seal[:-2]),
            (first.session_id, content[:-4] + "AAAA." + seal),
            (first.session_id, content),
            (first.session_id, ""),
            (first.session_id, "é.é"),
            (first.session_id, "\udce9.\udce9"),
            (first.session_id, "A.B"),
        ]

        for session_id, attempt in forged:
            with pytest.raises(SandboxSessionUnknown) as refused:
                sandbox.sandbox.open_session(session_id, attempt)
            assert refused.value.kind is ErrorKind.NOT_FOUND

    async def test_a_seal_is_no_webhook_signature(self, sandbox: SandboxHarness) -> None:
        other = SandboxProvider("another secret", "http://localhost:8000", clock=FixedClock())
        created = await other.create_checkout(request())

        with pytest.raises(SandboxSessionUnknown):
            sandbox.sandbox.open_session(created.session_id, _token(created.url))


class TestEvents:
    """What the page's buttons send."""

    async def test_a_double_click_is_one_event(self, sandbox: SandboxHarness) -> None:
        session = sandbox.open(await sandbox.provider.create_checkout(request()))

        first = verified(sandbox, paid_event(session, at=NOW))
        second = verified(sandbox, paid_event(session, at=NOW + timedelta(seconds=1)))

        assert first.event_id == second.event_id
        assert len(first.event_id) <= 255

    async def test_declined_twice_is_two_events_and_may_still_be_paid(self, sandbox: SandboxHarness) -> None:
        session = sandbox.open(await sandbox.provider.create_checkout(request()))
        later = NOW + timedelta(seconds=9)

        events = [
            verified(sandbox, body)
            for body in (
                declined_event(session, at=NOW),
                declined_event(session, at=later),
                paid_event(session, at=later),
                expired_event(session, at=later),
            )
        ]

        assert len({event.event_id for event in events}) == 4
        declined, paid = sandbox.provider.interpret(events[1]), sandbox.provider.interpret(events[2])
        assert isinstance(declined[0], CheckoutFailed)
        assert isinstance(paid[0], CheckoutPaid)
        assert declined[0].occurred_at == paid[0].occurred_at == later

    @pytest.mark.parametrize("amount", ["nine", "-1", "NaN", 49.99, None])
    async def test_amounts_are_exact_or_refused(self, sandbox: SandboxHarness, amount: object) -> None:
        session = sandbox.open(await sandbox.provider.create_checkout(request()))
        fields = json.loads(paid_event(session, at=NOW))
        assert fields["session"]["amount"] == "49.99"
        fields["session"]["amount"] = amount

        with pytest.raises(BadPayload, match=r"event\.session\.amount"):
            sandbox.provider.interpret(verified(sandbox, json.dumps(fields)))

    async def test_an_unknown_period_is_refused(self, sandbox: SandboxHarness) -> None:
        session = sandbox.open(await sandbox.provider.create_checkout(request()))
        fields = json.loads(paid_event(session, at=NOW))
        fields["session"]["billing_period"] = "weekly"

        with pytest.raises(BadPayload, match=r"event\.session\.billing_period"):
            sandbox.provider.interpret(verified(sandbox, json.dumps(fields)))


async def test_a_customer_is_the_same_for_a_tenant(sandbox: SandboxHarness) -> None:
    first = await sandbox.provider.create_checkout(request())
    second = await sandbox.provider.create_checkout(request())

    assert first.customer_ref == second.customer_ref


async def test_keeps_no_subscriptions(sandbox: SandboxHarness) -> None:
    with pytest.raises(ProviderRejected, match="keeps no subscriptions"):
        await sandbox.provider.fetch_subscription("sbx_sub_1")


async def test_capabilities(sandbox: SandboxHarness) -> None:
    assert sandbox.provider.name == "sandbox"
    assert sandbox.provider.capabilities.development_only
    assert not sandbox.provider.capabilities.recurring
    assert not sandbox.provider.capabilities.fetch_subscription
    await sandbox.provider.aclose()


async def test_free_plans_can_be_bought(sandbox: SandboxHarness) -> None:
    session = sandbox.open(await sandbox.provider.create_checkout(request(amount="0.00")))

    assert session.amount == Decimal(0)


def _token(url: str) -> str:
    (token,) = parse_qs(urlsplit(url).query)[TOKEN_PARAMETER]
    return token


class TestInvoices:
    """Payments that buy no plan; the sandbox keeps none, so its events are all that there is."""

    async def test_the_event_leads_to_itself(self, sandbox: SandboxHarness) -> None:
        asked = invoice_request()
        session = sandbox.open(await sandbox.provider.create_invoice(asked))
        later = NOW + timedelta(seconds=7)
        event = verified(sandbox, paid_event(session, at=later))

        reference = sandbox.provider.to_fetch(event)
        assert reference is not None
        state = await sandbox.provider.fetch_payment(reference)

        assert sandbox.provider.interpret(event) == ()
        assert state is not None
        assert (state.status, state.received, state.is_test) == (PaymentStatus.PAID, asked.amount, True)
        assert state.changed_at == later
        assert state.tags is not None
        assert state.tags.order_id == asked.invoice_id

    async def test_nobody_can_make_such_a_reference(self, sandbox: SandboxHarness) -> None:
        session = sandbox.open(await sandbox.provider.create_invoice(invoice_request()))
        reference = sandbox.provider.to_fetch(verified(sandbox, paid_event(session, at=NOW)))
        assert reference is not None

        for forged in (reference[:-2], "A" + reference, _token((await _created(sandbox)).url)):
            assert await sandbox.provider.fetch_payment(forged) is None

    async def test_the_page_of_plans_does_not_show_it(self, sandbox: SandboxHarness) -> None:
        session = sandbox.open(await sandbox.provider.create_invoice(invoice_request()))

        with pytest.raises(SandboxSessionUnknown):
            _ = session.purchase


async def _created(sandbox: SandboxHarness) -> CheckoutCreated:
    return await sandbox.provider.create_checkout(request())
