"""What a fake Stripe account holds, and its story: what payers, banks and time do to it.

The story's methods change the stored objects and return the events of that moment.
"""

import copy
import time
from collections.abc import Callable

from tests.fakes import stripe_invoices, stripe_objects
from tests.fakes.server import FakeServer
from tests.fakes.stripe_objects import Obj


class StripeAccount(FakeServer):
    """The objects of one account, in live or test mode."""

    def __init__(self, *, clock: Callable[[], float] = time.time, live: bool = False) -> None:
        super().__init__(clock=clock)
        self.live = live
        self.customers: dict[str, Obj] = {}
        self.sessions: dict[str, Obj] = {}
        self.subscriptions: dict[str, Obj] = {}
        self.invoices: dict[str, Obj] = {}
        self.charges: dict[str, Obj] = {}
        self.disputes: dict[str, Obj] = {}
        self.payments: dict[str, Obj] = {}
        self.refunds: dict[str, Obj] = {}
        # Bills that we asked to collect once more; the story tells what comes of it.
        self.collected: list[str] = []
        self.events: list[Obj] = []
        self.books: dict[str, Obj] = {}
        self._links: list[Obj] = []
        self._lines: dict[str, Obj] = {}
        self._metadata: dict[str, Obj] = {}

    def pay_checkout(self, session_id: str, *, delayed: bool = False) -> list[Obj]:
        """Somebody completes a checkout: paid at once, or by a slow method whose money is on its way."""
        session = self.sessions[session_id]
        assert session["status"] == "open"
        if session["mode"] == "payment":
            return self._pay_once(session, delayed=delayed)
        if session["customer"] is None:
            email = session["customer_email"] or "payer@example.com"
            created = stripe_objects.customer(email, now=self.now(), live=self.live)
            self.customers[created["id"]] = created
            session["customer"] = created["id"]
        price = stripe_objects.price(self._lines[session_id], now=self.now(), live=self.live)
        subscription = stripe_objects.subscription(
            price, session["customer"], self._metadata[session_id], now=self.now(), status="active"
        )
        self.subscriptions[subscription["id"]] = subscription
        invoice = self._bill(subscription, "subscription_create")
        session.update(status="complete", subscription=subscription["id"], invoice=invoice["id"])
        events = [self._event("customer.subscription.created", subscription)]
        if not delayed:
            events += self._settle(invoice)
            session["payment_status"] = "paid"
        return [*events, self._event("checkout.session.completed", session)]

    def _pay_once(self, session: Obj, *, delayed: bool) -> list[Obj]:
        metadata = self._metadata[session["id"]]
        session["status"] = "complete"
        if delayed:
            payment = stripe_objects.payment_intent(session["amount_total"], session, metadata, now=self.now())
            self.payments[payment["id"]] = payment
            session["payment_intent"] = payment["id"]
            return [self._event("checkout.session.completed", session)]
        charge = self._charge(session["amount_total"], session, metadata=metadata)
        session.update(payment_status="paid", payment_intent=charge["payment_intent"])
        return [self._event("charge.succeeded", charge), self._event("checkout.session.completed", session)]

    def settle_checkout(self, session_id: str, *, arrives: bool) -> list[Obj]:
        """The slow money of a delayed checkout arrives, or never will."""
        session = self.sessions[session_id]
        if session["mode"] == "payment":
            assert not arrives
            self.payments[session["payment_intent"]]["status"] = "requires_payment_method"
            return [self._event("checkout.session.async_payment_failed", session)]
        invoice = self.invoices[session["invoice"]]
        if not arrives:
            return [self._fail(invoice), self._event("checkout.session.async_payment_failed", session)]
        session["payment_status"] = "paid"
        return [*self._settle(invoice), self._event("checkout.session.async_payment_succeeded", session)]

    def expire_checkout(self, session_id: str) -> list[Obj]:
        session = self.sessions[session_id]
        session.update(status="expired", url=None)
        return [self._event("checkout.session.expired", session)]

    def renew(self, subscription_id: str, *, paid: bool = True) -> list[Obj]:
        """A period is over: the next one begins and is charged, with or without success."""
        subscription = self.subscriptions[subscription_id]
        item = subscription["items"]["data"][0]
        item["current_period_start"] = item["current_period_end"]
        interval = item["price"]["recurring"]["interval"]
        item["current_period_end"] = stripe_objects.add_interval(item["current_period_start"], interval)
        subscription["status"] = "active" if paid else "past_due"
        invoice = self._bill(subscription, "subscription_cycle")
        money = self._settle(invoice) if paid else [self._fail(invoice)]
        return [*money, self._event("customer.subscription.updated", subscription)]

    def end_subscription(self, subscription_id: str) -> list[Obj]:
        """The subscription is cancelled for good, at its period's end or after the last failed attempt."""
        subscription = self.subscriptions[subscription_id]
        self._cancel(subscription)
        return [self._event("customer.subscription.deleted", subscription)]

    def refund(self, charge_id: str, amount: int, metadata: Obj | None = None) -> list[Obj]:
        """Give back `amount` minor units of a charge."""
        charge = self.charges[charge_id]
        made = stripe_objects.refund(charge, amount, metadata or {}, now=self.now())
        self.refunds[made["id"]] = made
        before = charge["amount_refunded"]
        charge["amount_refunded"] = before + amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        return [self._event("charge.refunded", charge, previous={"amount_refunded": before})]

    def fail_refund(self, charge_id: str, amount: int) -> list[Obj]:
        """The bank sends a refund back: Stripe takes it off the charge, and tells so three times over."""
        charge = self.charges[charge_id]
        refund = next(
            made
            for made in self.refunds.values()
            if (made["charge"], made["amount"], made["status"]) == (charge_id, amount, "succeeded")
        )
        refund["status"] = "failed"
        charge.update(amount_refunded=charge["amount_refunded"] - amount, refunded=False)
        kinds = ("charge.refund.updated", "refund.updated", "refund.failed")
        return [self._event(kind, refund, previous={"status": "succeeded"}) for kind in kinds]

    def open_dispute(self, charge_id: str, *, inquiry: bool = False) -> list[Obj]:
        status = "warning_needs_response" if inquiry else "needs_response"
        charge = self.charges[charge_id]
        charge["disputed"] = True
        dispute = stripe_objects.dispute(charge, now=self.now(), status=status, reason="fraudulent")
        if not inquiry:
            self._withdraw(dispute)
        self.disputes[dispute["id"]] = dispute
        return [self._event("charge.dispute.created", dispute)]

    def escalate_dispute(self, dispute_id: str) -> list[Obj]:
        """An inquiry becomes a dispute that takes the money; it is not created again."""
        dispute = self.disputes[dispute_id]
        dispute["status"] = "needs_response"
        self._withdraw(dispute)
        kinds = ("charge.dispute.updated", "charge.dispute.funds_withdrawn")
        return [self._event(kind, dispute) for kind in kinds]

    def _withdraw(self, dispute: Obj) -> None:
        charge = self.charges[dispute["charge"]]
        taken = stripe_objects.balance_transaction({**charge, "amount": -charge["amount"]}, fee=1500, now=self.now())
        dispute["balance_transactions"].append({**taken, "source": dispute["id"], "type": "adjustment"})

    def close_dispute(self, dispute_id: str, status: str) -> list[Obj]:
        """Close a dispute as `won`, `lost`, `warning_closed` or `prevented`."""
        dispute = self.disputes[dispute_id]
        dispute["status"] = status
        if status == "won" and dispute["balance_transactions"]:
            (taken,) = dispute["balance_transactions"]
            back = {**taken, "id": stripe_objects.new_id("txn"), "amount": -taken["amount"], "fee": -taken["fee"]}
            dispute["balance_transactions"].append({**back, "net": -taken["net"], "fee_details": []})
        return [self._event("charge.dispute.closed", dispute)]

    def return_refunded(self, dispute_id: str) -> list[Obj]:
        """Of a lost dispute what had been refunded comes back, once it is closed."""
        dispute = self.disputes[dispute_id]
        charge = self.charges[dispute["charge"]]
        refunded = {**charge, "amount": charge["amount_refunded"]}
        back = stripe_objects.balance_transaction(refunded, fee=0, now=self.now())
        dispute["balance_transactions"].append({**back, "source": dispute["id"], "type": "adjustment"})
        return [self._event("charge.dispute.funds_reinstated", dispute)]

    def charge_of(self, subscription_id: str) -> Obj:
        """The newest charge of a subscription's customer."""
        customer = self.subscriptions[subscription_id]["customer"]
        return [charge for charge in self.charges.values() if charge["customer"] == customer][-1]

    def _event(self, kind: str, subject: Obj, *, previous: Obj | None = None) -> Obj:
        # What an event shows never changes afterwards.
        event = stripe_objects.event(kind, copy.deepcopy(subject), now=self.now(), previous=previous)
        self.events.append(event)
        return event

    def _bill(self, subscription: Obj, reason: str) -> Obj:
        number = f"F4K3-{len(self.invoices) + 1:04}"
        invoice = stripe_invoices.invoice(subscription, now=self.now(), reason=reason, number=number)
        self.invoices[invoice["id"]] = invoice
        subscription["latest_invoice"] = invoice["id"]
        return invoice

    def _settle(self, invoice: Obj) -> list[Obj]:
        charge = self._charge(invoice["amount_due"], invoice, metadata={})
        payment_intent = charge["payment_intent"]
        invoice.update(status="paid", amount_paid=invoice["amount_due"], amount_remaining=0, attempted=True)
        invoice["attempt_count"] += 1
        invoice["status_transitions"]["paid_at"] = self.now()
        link = stripe_invoices.invoice_payment(invoice, payment_intent, now=self.now())
        self._links.append(link)
        return [
            self._event("charge.succeeded", charge),
            self._event("invoice.paid", invoice),
            self._event("invoice.payment_succeeded", invoice),
            self._event("invoice_payment.paid", link),
        ]

    def _charge(self, amount: int, of: Obj, *, metadata: Obj) -> Obj:
        """Take money for an invoice or a session; return the charge, which its payment names."""
        payment = stripe_objects.payment_intent(amount, of, metadata, now=self.now())
        charge = stripe_objects.charge(payment, now=self.now())
        payment.update(status="succeeded", amount_received=amount, latest_charge=charge["id"])
        self.payments[payment["id"]] = payment
        self.charges[charge["id"]] = charge
        # What Stripe keeps: 2.9 % and 30 cents.
        booked = stripe_objects.balance_transaction(charge, fee=round(amount * 0.029) + 30, now=self.now())
        charge["balance_transaction"] = booked["id"]
        self.books[booked["id"]] = booked
        return charge

    def _fail(self, invoice: Obj) -> Obj:
        invoice.update(attempted=True, next_payment_attempt=self.now() + 259_200)
        invoice["attempt_count"] += 1
        return self._event("invoice.payment_failed", invoice)

    def _cancel(self, subscription: Obj) -> None:
        subscription.update(status="canceled", canceled_at=self.now(), ended_at=self.now())
