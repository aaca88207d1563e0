"""Polls, lists and sweeps: it does not matter who comes first, and whoever is away loses nothing."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from core.pagination import PageRequest
from models.audit import AuditEntry
from models.billing import CheckoutSession, CheckoutState, PaymentEventType, SubscriptionStatus
from models.inbox import InboxState, ProviderEvent
from models.reconciliations import Reconciliation, ReconciliationStage, ReconciliationState
from services.billing.errors import NothingToReconcile, ReconciliationNotFound, ReconciliationRunning
from services.billing.reconciling import ReconciliationView
from services.billing.reconciling.sweeps import Superseded
from services.identity import SuperuserRequired
from tests.fakes.server import Fault, Reply
from tests.services.billing.test_every_provider import ACTIVE, ended
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.reconciling import Watch, open_watch
from tests.support.stalls import Stall, open_stall

pytestmark = pytest.mark.embedded


async def checkout_id(till: Till, shop: Shop) -> UUID:
    (checkout,) = await till.checkouts(shop)
    return checkout.id


async def listened(till: Till, shop: Shop) -> tuple[Any, ...]:
    """Return all that a purchase may leave behind."""
    counted = [action for action in await till.audit(shop) if action == "payment.received"]
    return await ended(till, shop), len(till.heard(shop, "payment:received")), len(counted)


class TestOrder:
    """A webhook, the list and a poll tell the same payment."""

    async def roads(
        self, till: Till, shop: Shop, stall: Stall, watch: Watch
    ) -> dict[str, Callable[[], Awaitable[None]]]:
        """Let somebody pay; returns the roads on which we may hear of it."""
        created = await stall.begin(shop)
        events = stall.harness.paid(created)
        feed = await watch.feed(stall.name)
        till.travel(minutes=3)
        own = await checkout_id(till, shop)

        async def webhook() -> None:
            for event in events:
                await stall.bring(event)
            await watch.work()

        async def listing() -> None:
            await till.billing.reconciling.read(feed.id)
            await watch.work()

        async def poll() -> None:
            await till.billing.reconciling.poll(own)
            await watch.work()

        return {"webhook": webhook, "listing": listing, "poll": poll}

    @pytest.mark.parametrize("order", list(itertools.permutations(("webhook", "listing", "poll"))), ids="-".join)
    async def test_each_order(self, till: Till, shop: Shop, stall: Stall, order: tuple[str, ...]) -> None:
        watch = await open_watch(till)
        roads = await self.roads(till, shop, stall, watch)
        for name in order:
            await roads[name]()
        assert await listened(till, shop) == (ACTIVE, 1, 1)
        # Only who was first has changed anything.
        assert (await till.audit(shop)).count("payment.reconciled") == (0 if order[0] == "webhook" else 1)

    async def test_all_at_once(self, till: Till, shop: Shop, stall: Stall) -> None:
        watch = await open_watch(till)
        roads = await self.roads(till, shop, stall, watch)
        sweep = asyncio.create_task(watch.swept(stall.name))
        await asyncio.gather(*(road() for road in (*roads.values(), *roads.values())), sweep)
        await asyncio.gather(*(self.everything(till, stall) for _ in range(3)))
        assert await listened(till, shop) == (ACTIVE, 1, 1)

    async def everything(self, till: Till, stall: Stall) -> None:
        """Apply whatever is in the inbox, as several workers do."""
        async with till.units(PLATFORM) as uow:
            rows = await uow.session.scalars(
                select(ProviderEvent.id).where(
                    ProviderEvent.provider == stall.name, ProviderEvent.state == InboxState.RECEIVED
                )
            )
            waiting = list(rows)
        await asyncio.gather(*(till.billing.apply(row_id) for row_id in waiting))


FAULTS = [
    Fault(status=500),
    Fault(status=429, body='{"error": {"type": "invalid_request_error", "code": "rate_limit"}}'),
    Fault(status=200, body="{}"),
    Fault(status=200, body="<html>Login to the wifi</html>"),
    Fault(status=400, body='{"code": "x"}'),
    Fault(status=401, body='{"error": {"message": "no"}}'),
    Fault(cut="before"),
    Fault(cut="middle"),
]


class TestFaults:
    """Whoever is away delays, and loses nothing."""

    @pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.status} {fault.cut} {fault.body[:6]}")
    async def test_a_broken_provider(self, till: Till, shop: Shop, stall: Stall, fault: Fault) -> None:
        watch = await open_watch(till)
        created = await stall.begin(shop)
        stall.harness.paid(created)
        stall.fake.always = fault
        await watch.pass_minutes(12)
        feed = await watch.feed(stall.name)
        assert feed.failures > 0
        assert feed.read_until is None
        (checkout,) = await till.checkouts(shop)
        assert checkout.state is CheckoutState.PENDING
        stall.fake.always = None
        await watch.pass_minutes(10)
        assert await listened(till, shop) == (ACTIVE, 1, 1)
        assert (await watch.feed(stall.name)).failures == 0

    async def test_a_slow_provider(self, till: Till, shop: Shop, stall: Stall) -> None:
        watch = await open_watch(till)
        stall.harness.paid(await stall.begin(shop))
        patient, till.providers[stall.name] = (
            till.providers[stall.name],
            stall.harness.patient(attempt_s=0.1, total_s=0.15, attempts=1),
        )
        stall.fake.always = Fault(delay_s=5.0)
        await watch.pass_minutes(6)
        assert (await watch.feed(stall.name)).failures > 0
        till.providers[stall.name], stall.fake.always = patient, None
        await watch.pass_minutes(10)
        assert await listened(till, shop) == (ACTIVE, 1, 1)

    async def test_whoever_asks_for_a_pause_gets_it(self, till: Till, shop: Shop, paypal: Stall) -> None:
        watch = await open_watch(till)
        await paypal.begin(shop)
        paypal.fake.always = Fault(status=429, headers={"Retry-After": "1800"})
        till.travel(minutes=6)
        await watch.look()
        (checkout,) = await till.checkouts(shop)
        feed = await watch.feed("paypal")
        assert checkout.next_poll_at is not None
        assert min(checkout.next_poll_at, feed.next_at) - till.now > timedelta(minutes=29)
        before = len(paypal.fake.requests)
        await watch.pass_minutes(20)
        assert len(paypal.fake.requests) == before

    async def test_a_list_that_breaks_off_is_read_from_its_beginning(
        self, till: Till, shop: Shop, paypal: Stall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("providers.payments.paypal._PAGE", 1)
        watch = await open_watch(till)
        for _ in range(3):
            tenant = await till.shop()
            paypal.fake.approve((await paypal.begin(tenant)).session_id)
        feed = await watch.feed("paypal")
        till.travel(minutes=3)
        # After two pages nothing more is answered.
        answer, asked = paypal.fake.answer, []

        def tired(request: Any, seen: Any) -> Any:
            asked.append(request.path)
            if asked.count("/v1/notifications/webhooks-events") == 2:
                paypal.fake.always = Fault(status=500)
            return answer(request, seen)

        paypal.fake.answer = tired
        await till.billing.reconciling.read(feed.id)
        before = await watch.found("paypal")
        assert (await watch.feed("paypal")).read_until is None
        paypal.fake.answer, paypal.fake.always = answer, None
        await till.billing.reconciling.read(feed.id)
        assert (await watch.feed("paypal")).read_until is not None
        assert await watch.found("paypal") > before

    async def test_a_price_that_was_not_asked_is_dead_and_told_once(
        self, till: Till, shop: Shop, btcpay: Stall
    ) -> None:
        watch = await open_watch(till)
        created = await btcpay.begin(shop)
        await till.change(CheckoutSession, await checkout_id(till, shop), amount=Decimal("99.00"))
        btcpay.harness.paid(created)
        await watch.pass_minutes(30)
        assert (await till.checkouts(shop))[0].state is CheckoutState.PENDING
        assert (await till.audit(shop)).count("provider_event.dead") <= 2
        assert "payment.reconciled" not in await till.audit(shop)

    async def test_a_provider_without_keys_waits_for_them(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        watch = await open_watch(till)
        btcpay.harness.paid(await btcpay.begin(shop))
        kept = till.providers.pop("btcpay")
        await watch.pass_minutes(10)
        assert (await till.checkouts(shop))[0].next_poll_at is not None
        till.providers["btcpay"] = kept
        await watch.pass_minutes(10)
        assert await ended(till, shop) == ACTIVE


class TestSweeps:
    """Everything against everything."""

    async def test_a_subscription_that_no_event_told_of(self, till: Till, shop: Shop) -> None:
        watch = await open_watch(till)
        subscription_id = await till.buy(shop)
        await watch.swept("stripe")
        held = till.stripe.subscriptions[subscription_id]
        held.update(cancel_at_period_end=True, canceled_at=till.stripe.now())
        view = await watch.swept("stripe")
        assert (view.state, view.found, view.changed) == (ReconciliationState.DONE, 1, 1)
        assert (await till.subscription(shop)).cancel_at_period_end
        # And back again, which is the state that was seen at first.
        held.update(cancel_at_period_end=False, canceled_at=None)
        till.travel(seconds=5)
        view = await watch.swept("stripe")
        assert (view.found, view.changed) == (1, 1)
        assert not (await till.subscription(shop)).cancel_at_period_end
        assert (await watch.swept("stripe")).found == 0

    async def test_a_refund_of_long_ago(self, till: Till, shop: Shop) -> None:
        async with open_stall(till, "liqpay") as liqpay:
            watch = await open_watch(till)
            created = await liqpay.begin(shop)
            await liqpay.take(liqpay.harness.paid(created))
            till.travel(days=70)
            liqpay.fake.give_back(created.session_id, 10)
            view = await watch.swept("liqpay")
            assert view.changed == 1
            kinds = [row.event_type for row in await till.payments(shop)]
            assert kinds == [PaymentEventType.PAYMENT_SUCCESS, PaymentEventType.REFUND]
            again = await watch.swept("liqpay")
            assert (again.found, again.changed) == (0, 0)

    async def test_what_we_ended_ourselves_stays_ended(self, till: Till, shop: Shop) -> None:
        watch = await open_watch(till)
        subscription_id = await till.buy(shop)
        await till.cancel(shop.owner, at_period_end=False)
        # Somebody makes it go on in Stripe's dashboard.
        till.stripe.subscriptions[subscription_id].update(status="active", ended_at=None, canceled_at=None)
        await watch.swept("stripe")
        assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
        assert till.stripe.subscriptions[subscription_id]["status"] == "canceled"

    async def test_another_worker_goes_on(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        watch = await open_watch(till)
        btcpay.harness.paid(await btcpay.begin(shop))
        sweeps = till.billing.reconciling._sweeps
        async with till.units(PLATFORM) as uow:
            begun = await till.billing.reconciling.begin(uow, "btcpay")
        claimed = await sweeps._claim(begun.id)
        assert claimed is not None
        row, attempt = claimed
        part = await sweeps._compare(row)
        # The worker is lost here; nobody else takes it up before its time is over.
        await till.billing.reconciling.run(begun.id)
        await watch.look()
        assert (await self.shown(till, begun.id)).state is ReconciliationState.RUNNING
        till.travel(minutes=6)
        await watch.look()
        view = await self.shown(till, begun.id)
        assert (view.state, view.stage) == (ReconciliationState.DONE, ReconciliationStage.MERCHANTS)
        assert await ended(till, shop) == ACTIVE
        # It comes back, and finds that it is not its any more.
        with pytest.raises(Superseded):
            await sweeps._keep(begun.id, attempt, part)
        assert await self.shown(till, begun.id) == view

    async def shown(self, till: Till, row_id: UUID) -> Any:
        async with till.units(PLATFORM) as uow:
            return await till.billing.reconciling.view(uow, row_id)

    async def test_a_provider_that_stays_away(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        watch = await open_watch(till)
        btcpay.fake.always = Fault(status=500)
        view = await watch.swept("btcpay")
        assert (view.state, view.last_error) == (
            ReconciliationState.RUNNING,
            "The payment provider is temporarily unavailable",
        )
        till.travel(hours=13)
        await watch.look()
        assert (await self.shown(till, view.id)).state is ReconciliationState.FAILED
        btcpay.fake.always = None
        assert (await watch.swept("btcpay")).state is ReconciliationState.DONE

    async def test_what_a_provider_refuses_fails_at_once(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        watch = await open_watch(till)
        btcpay.fake.always = Fault(status=400, body='{"code": "x"}')
        assert (await watch.swept("btcpay")).state is ReconciliationState.FAILED

    async def test_one_purchase_that_is_refused_holds_up_no_other(self, till: Till, shop: Shop) -> None:
        watch = await open_watch(till)
        async with open_stall(till, "liqpay") as liqpay:
            other = await till.shop()
            lost, paid = [await liqpay.begin(tenant) for tenant in (shop, other)]
            liqpay.harness.paid(paid)
            fake, healthy = liqpay.fake, liqpay.fake.answer
            strange = {"result": "error", "status": "error", "err_code": "err_strange"}
            fake.answer = lambda request, seen: (
                Reply(200, strange)
                if (fake._opened(seen.params) or {}).get("order_id") == lost.session_id
                else healthy(request, seen)
            )
            swept = await watch.swept("liqpay")
        assert swept.state is ReconciliationState.DONE
        assert await ended(till, other) == ACTIVE

    async def test_one_at_a_time_for_superusers(self, till: Till, shop: Shop) -> None:
        watch = await open_watch(till)
        operator = replace(shop.owner, is_superuser=True)
        reconciling = till.billing.reconciling

        async def ask() -> object:
            async with till.units(PLATFORM) as uow:
                return await reconciling.request(uow, operator, provider=" Stripe ")

        answers = await asyncio.gather(*(ask() for _ in range(5)), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == [
            *["ReconciliationRunning"] * 4,
            "ReconciliationView",
        ]
        (row_id,) = [answer.id for answer in answers if isinstance(answer, ReconciliationView)]
        await asyncio.gather(*(reconciling.run(row_id) for _ in range(4)))
        await watch.work()
        async with till.units(PLATFORM) as uow:
            assert (await uow.session.get_one(Reconciliation, row_id)).attempts == 1
            (view,) = (await reconciling.list(uow, operator, PageRequest())).items
            assert (view.state, view.requested_by) == (ReconciliationState.DONE, operator.user_id)
            assert await reconciling.show(uow, operator, row_id=view.id) == view
            audited = await uow.session.scalars(select(AuditEntry.action).where(AuditEntry.subject_id == str(view.id)))
            assert sorted(audited) == ["reconciliation.finished", "reconciliation.started"]
            with pytest.raises(NothingToReconcile):
                await reconciling.request(uow, operator, provider="nobody")
            with pytest.raises(ReconciliationNotFound):
                await reconciling.show(uow, operator, row_id=uuid4())
            for refused in (
                reconciling.request(uow, shop.owner, provider="stripe"),
                reconciling.list(uow, shop.owner, PageRequest()),
                reconciling.show(uow, shop.owner, row_id=view.id),
            ):
                with pytest.raises(SuperuserRequired):
                    await refused
            await reconciling.request(uow, operator, provider="stripe")
            with pytest.raises(ReconciliationRunning):
                await reconciling.request(uow, operator, provider="stripe")

    async def test_the_sandbox_has_nothing_to_compare(self, till: Till, shop: Shop) -> None:
        watch = await open_watch(till)
        await till.checkout(shop.owner, provider="sandbox")
        view = await watch.swept("sandbox")
        assert (view.state, view.found) == (ReconciliationState.DONE, 0)
        assert view.checked == 0
