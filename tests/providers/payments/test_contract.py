"""The contract of `providers/payments/contract.py`, run on every adapter.

A new adapter joins by a harness (`harness.py`, `harness_one_time.py`) and its name in `conftest.py`. What can go wrong
on the way to a provider is in `test_contract_failures.py`, whom it believes in `test_contract_webhooks.py`.
"""

import copy
from decimal import Decimal
from uuid import uuid4

import pytest

from providers.payments import (
    CheckoutExpired,
    CheckoutFailed,
    CheckoutPaid,
    PaymentStatus,
    ProviderRejected,
    Purchase,
    RefundRequest,
    RefundStatus,
    settle_payment,
)
from tests.providers.payments.harness import NOW, PLAN, TENANT, Harness, invoice_request, request
from tests.providers.payments.receiving import facts, receive, states


class TestCreateCheckout:
    """Opening a checkout."""

    async def test_answers_with_a_session_that_waits_for_its_payer(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())

        assert created.url.startswith(("http://", "https://"))
        assert 0 < len(created.session_id) <= 255
        assert created.expires_at == NOW + harness.lifetime

    async def test_is_idempotent_by_our_own_id(self, harness: Harness) -> None:
        asked = request()

        first = await harness.provider.create_checkout(asked)
        second = await harness.provider.create_checkout(asked)
        other = await harness.provider.create_checkout(request())

        assert first.session_id == second.session_id
        assert other.session_id != first.session_id

    async def test_money_comes_back_as_it_was_asked(self, harness: Harness) -> None:
        for amount, currency in harness.payable:
            created = await harness.provider.create_checkout(request(amount=amount, currency=currency))
            found = await facts(harness, harness.paid(created))
            paid = [fact for fact in found if isinstance(fact, CheckoutPaid)]

            assert all(isinstance(fact.amount, Decimal) for fact in paid)
            assert {(fact.amount, fact.currency) for fact in paid} == {(Decimal(amount), currency.upper())}

    @pytest.mark.parametrize(
        ("amount", "currency"),
        [
            ("49.999", "USD"),
            ("4900.5", "JPY"),
            ("12.3456", "KWD"),
            ("-1", "USD"),
            ("NaN", "USD"),
            ("Infinity", "USD"),
        ],
    )
    async def test_never_rounds_a_price(self, harness: Harness, amount: str, currency: str) -> None:
        for create in (
            lambda: harness.provider.create_checkout(request(amount=amount, currency=currency)),
            lambda: harness.provider.create_invoice(invoice_request(amount=amount, currency=currency)),
        ):
            with pytest.raises(ProviderRejected) as refused:
                await create()

            currencies = harness.provider.capabilities.currencies
            is_known = currencies is None or currency in currencies
            assert refused.value.details["reason"] == ("amount_not_payable" if is_known else "currency_not_supported")

    async def test_takes_its_own_currencies_only(self, harness: Harness) -> None:
        if harness.provider.capabilities.currencies is None:
            return
        with pytest.raises(ProviderRejected) as refused:
            await harness.provider.create_checkout(request(currency="XAF", amount="5000"))

        assert refused.value.details == {"reason": "currency_not_supported"}


class TestFacts:
    """What the provider's events say."""

    async def test_a_payment_names_what_was_bought_by_whom(self, harness: Harness) -> None:
        asked = request()
        created = await harness.provider.create_checkout(asked)

        found = await facts(harness, harness.paid(created))
        paid = next(fact for fact in found if isinstance(fact, CheckoutPaid))

        assert paid.provider == harness.provider.name
        assert paid.occurred_at == NOW
        assert paid.session_id == created.session_id
        assert paid.purchase == Purchase(
            checkout_id=asked.checkout_id, tenant_id=TENANT, plan_id=PLAN, billing_period="yearly"
        )
        assert bool(paid.subscription_ref) is harness.keeps_subscriptions
        assert bool(paid.customer_ref) or not harness.names_customers
        assert paid.payment_key

    async def test_a_known_customer_stays_the_same(self, harness: Harness) -> None:
        if not harness.names_customers:
            return
        first = await harness.provider.create_checkout(request())
        (before,) = [fact for fact in await facts(harness, harness.paid(first)) if isinstance(fact, CheckoutPaid)]

        second = await harness.provider.create_checkout(request(customer_ref=before.customer_ref))
        (after,) = [fact for fact in await facts(harness, harness.paid(second)) if isinstance(fact, CheckoutPaid)]

        assert after.customer_ref == before.customer_ref

    async def test_a_failed_payment_is_never_a_paid_one(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())

        found = await facts(harness, harness.declined(created))

        failed = next(fact for fact in found if isinstance(fact, CheckoutFailed))
        assert (failed.session_id, failed.amount) == (created.session_id, Decimal("49.99"))
        assert not [fact for fact in found if isinstance(fact, CheckoutPaid)]

    async def test_expiry_is_told(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())

        found = await facts(harness, harness.expired(created))

        assert bool(found) is harness.provider.capabilities.tells_expiry
        for expired in found:
            assert isinstance(expired, CheckoutExpired)
            assert expired.session_id == created.session_id
            assert expired.purchase.tenant_id == TENANT

    async def test_money_of_one_payment_has_one_key(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())

        found = await facts(harness, harness.paid(created))

        assert len({getattr(fact, "payment_key", None) for fact in found} - {None}) == 1

    async def test_interpreting_is_pure(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())
        for content in harness.paid(created):
            event = await receive(harness, content)
            before = copy.deepcopy(event)

            assert harness.provider.interpret(event) == harness.provider.interpret(event)
            assert harness.provider.to_fetch(event) == harness.provider.to_fetch(event)
            assert event == before

    async def test_every_order_of_arrival_ends_in_the_same_place(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())
        contents = harness.paid(created)
        await facts(harness, contents)

        backwards = await facts(harness, [*contents[::-1], *contents])

        paid = [fact for fact in backwards if isinstance(fact, CheckoutPaid)]
        assert {(fact.payment_key, fact.amount, fact.occurred_at) for fact in paid} == {
            (paid[0].payment_key, Decimal("49.99"), NOW)
        }
        assert not [fact for fact in backwards if isinstance(fact, CheckoutFailed | CheckoutExpired)]

    async def test_other_events_are_no_business_of_ours(self, harness: Harness) -> None:
        assert await facts(harness, [harness.other_event()]) == []


class TestInvoices:
    """One payment that buys no plan, such as an order of a merchant's customer."""

    async def test_is_idempotent_by_our_own_id(self, harness: Harness) -> None:
        asked = invoice_request()

        first = await harness.provider.create_invoice(asked)
        second = await harness.provider.create_invoice(asked)
        other = await harness.provider.create_invoice(invoice_request())

        assert first.session_id == second.session_id
        assert other.session_id != first.session_id

    async def test_a_payment_leads_to_its_order(self, harness: Harness) -> None:
        asked = invoice_request()
        created = await harness.provider.create_invoice(asked)
        contents = harness.paid(created)

        found = await states(harness, contents)

        assert found
        for state in found:
            assert state.status is PaymentStatus.PAID
            assert state.session_id == created.session_id
            assert state.tags is not None
            assert (state.tags.order_id, state.tags.tenant_id) == (asked.invoice_id, TENANT)
            assert state.tags.purchase is None
            assert (state.asked, state.received, state.currency) == (Decimal("49.99"), Decimal("49.99"), "USD")
            assert (state.refunded, state.overpaid) == (Decimal(0), Decimal(0))
        # It is nobody's subscription, so it must not be told in the words of one.
        assert await facts(harness, contents) == []

    async def test_a_failed_one_is_told(self, harness: Harness) -> None:
        created = await harness.provider.create_invoice(invoice_request())

        found = await states(harness, harness.declined(created))

        assert {state.status for state in found} == {PaymentStatus.FAILED}
        assert {state.received for state in found} == {0}


class TestFetchPayment:
    """Asking for a payment instead of waiting to be told."""

    async def test_knows_no_other(self, harness: Harness) -> None:
        for reference in ("cs_unknown", "68f7a946db0529ea9b6d3a12", "", "../orders", "a b", "?x=1", "é"):
            assert await harness.provider.fetch_payment(reference) is None

    async def test_tells_what_the_webhook_would_have(self, harness: Harness) -> None:
        if not harness.provider.capabilities.fetch_payment:
            return
        asked = request()
        created = await harness.provider.create_checkout(asked)
        before = await harness.provider.fetch_payment(created.session_id)
        harness.paid(created)

        after = await settle_payment(harness.provider, created.session_id)

        assert before is None or (before.status, before.received) == (PaymentStatus.PENDING, Decimal(0))
        assert after is not None
        assert (after.status, after.asked, after.received) == (PaymentStatus.PAID, Decimal("49.99"), Decimal("49.99"))
        assert after.tags is not None
        assert after.tags.order_id == asked.checkout_id
        assert after.tags.purchase is not None
        assert after.tags.purchase.plan_id == PLAN
        assert not after.is_late
        assert after.changed_at == NOW

    async def test_capturing_what_needs_no_capture_changes_nothing(self, harness: Harness) -> None:
        if not harness.provider.capabilities.fetch_payment:
            return
        created = await harness.provider.create_checkout(request())
        harness.paid(created)

        first = await harness.provider.capture(created.session_id)
        second = await harness.provider.capture(created.session_id)

        assert first == second
        assert first.status is PaymentStatus.PAID


class TestRefunds:
    """Giving money back."""

    async def _paid(self, harness: Harness) -> str:
        created = await harness.provider.create_invoice(invoice_request())
        await states(harness, harness.paid(created))
        return created.session_id

    def _refund(self, session_id: str, amount: str, before: str = "0") -> RefundRequest:
        return RefundRequest(
            refund_id=uuid4(),
            session_id=session_id,
            payment_ref=None,
            amount=Decimal(amount),
            currency="USD",
            refunded_before=Decimal(before),
        )

    async def test_in_parts_until_all_of_it_is_back(self, harness: Harness) -> None:
        if not harness.provider.capabilities.refund:
            return
        session_id = await self._paid(harness)

        for amount, before in (("10.00", "0"), ("0.01", "10.00"), ("39.98", "10.01")):
            made = await harness.provider.refund(self._refund(session_id, amount, before))

            assert made.amount == Decimal(amount)
            assert made.status in (RefundStatus.PENDING, RefundStatus.SUCCEEDED)
            assert 0 < len(made.refund_ref) <= 255

    async def test_is_idempotent_by_our_own_id(self, harness: Harness) -> None:
        if not harness.provider.capabilities.refund:
            return
        session_id = await self._paid(harness)
        asked = self._refund(session_id, "49.99")

        first = await harness.provider.refund(asked)
        second = await harness.provider.refund(asked)

        assert (first.refund_ref, first.amount) == (second.refund_ref, second.amount)

    async def test_shows_in_the_payment(self, harness: Harness) -> None:
        if not harness.provider.capabilities.refund or not harness.provider.capabilities.fetch_payment:
            return
        session_id = await self._paid(harness)

        await harness.provider.refund(self._refund(session_id, "10.00"))
        part = await harness.provider.fetch_payment(session_id)
        await harness.provider.refund(self._refund(session_id, "39.99", "10.00"))
        whole = await harness.provider.fetch_payment(session_id)

        assert part is not None
        assert whole is not None
        assert (part.status, whole.status) == (PaymentStatus.PAID, PaymentStatus.PAID)
        # BTCPay's refunds are promises that are no part of the invoice.
        expected = (0, 0) if harness.provider.name == "btcpay" else (Decimal("10.00"), Decimal("49.99"))
        assert (part.refunded, whole.refunded) == expected

    @pytest.mark.parametrize("amount", ["0", "-1", "NaN", "0.001", "50.00"])
    async def test_refuses_what_cannot_be_given_back(self, harness: Harness, amount: str) -> None:
        if not harness.provider.capabilities.refund:
            return
        if amount in {"50.00", "0.001"} and harness.provider.capabilities.development_only:
            # The sandbox remembers no amounts.
            return
        session_id = await self._paid(harness)

        with pytest.raises(ProviderRejected):
            await harness.provider.refund(self._refund(session_id, amount))

    async def test_refuses_what_was_never_paid(self, harness: Harness) -> None:
        created = await harness.provider.create_invoice(invoice_request())
        if harness.provider.capabilities.development_only:
            return
        for session_id in (created.session_id, "cs_unknown", "../x", ""):
            with pytest.raises(ProviderRejected):
                await harness.provider.refund(self._refund(session_id, "1.00"))


class TestWithdraw:
    """Closing a session that nobody has paid."""

    async def test_twice_is_as_good_as_once(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())
        if not harness.provider.capabilities.withdraw:
            with pytest.raises(ProviderRejected) as refused:
                await harness.provider.withdraw(created.session_id)
            assert refused.value.details == {"reason": "not_supported"}
            return

        await harness.provider.withdraw(created.session_id)
        await harness.provider.withdraw(created.session_id)

        state = await harness.provider.fetch_payment(created.session_id)
        assert state is not None
        assert state.status in (PaymentStatus.CANCELLED, PaymentStatus.EXPIRED)

    async def test_never_what_is_paid(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())
        harness.paid(created)

        for session_id in (created.session_id, "cs_unknown", "../x", ""):
            with pytest.raises(ProviderRejected):
                await harness.provider.withdraw(session_id)


class TestCancel:
    """Ending a subscription."""

    async def test_twice_and_both_ways(self, harness: Harness) -> None:
        if not harness.keeps_subscriptions:
            with pytest.raises(ProviderRejected) as refused:
                await harness.provider.cancel("sub_1", at_period_end=True)
            assert refused.value.details == {"reason": "not_supported"}
            return
        created = await harness.provider.create_checkout(request())
        found = await facts(harness, harness.paid(created))
        (paid,) = [fact for fact in found if isinstance(fact, CheckoutPaid)]
        assert paid.subscription_ref is not None

        for at_period_end in (True, True, False, False, True):
            await harness.provider.cancel(paid.subscription_ref, at_period_end=at_period_end)

    @pytest.mark.parametrize("at_period_end", [True, False])
    @pytest.mark.parametrize("ref", ["sub_unknown", "sbx_sub_unknown", "../customers", "sbx_sub_" + "0" * 64, ""])
    async def test_refuses_what_it_does_not_know(self, harness: Harness, ref: str, *, at_period_end: bool) -> None:
        with pytest.raises(ProviderRejected):
            await harness.provider.cancel(ref, at_period_end=at_period_end)


async def test_subscriptions_are_told_by_those_who_keep_them(harness: Harness) -> None:
    if harness.provider.capabilities.fetch_subscription:
        assert await harness.provider.fetch_subscription("sub_unknown") is None
        return
    with pytest.raises(ProviderRejected) as refused:
        await harness.provider.fetch_subscription("sub_unknown")
    assert refused.value.details == {"reason": "not_supported"}


async def test_closing_twice_is_harmless(harness: Harness) -> None:
    await harness.provider.aclose()
    await harness.provider.aclose()
