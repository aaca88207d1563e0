"""From what a merchant's provider tells to the order: its state, our commission, and who hears of it.

The six cases of crypto payments (providers.md 1.2) are told apart by amounts alone (services/merchants/reckoning.py),
and money that is told twice counts once. What a merchant's account tells reaches that merchant's orders alone.
"""

from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.orm.attributes import flag_modified

from core.money import plain_amount
from models.credits import CreditReason
from models.journal import EntryKind
from models.merchants import CommissionLog
from models.orders import OrderDispute, OrderInvoice, RefundState
from models.payment_progress import CheckoutState
from providers.payments import DisputeClosed, DisputeOpened, PaymentState, PaymentStatus
from services.billing import journal
from services.billing.errors import FactRefused, NotThereYet
from services.billing.inbox import Told
from services.billing.journal import MoneyFact
from services.merchants.announcer import MerchantAnnouncer, News
from services.merchants.lookup import held_book
from services.merchants.reckoning import Book
from services.merchants.views import OrderView
from services.unit_of_work import UnitOfWork

# The journal tells facts apart by their provider; an order's commission is one fact, wherever its invoices were.
JOURNAL: Final = "orders"

_OWED_NEWS: Final[dict[CreditReason, News]] = {
    CreditReason.UNDERPAID: "order_underpaid",
    CreditReason.OVERPAID: "order_overpaid",
    CreditReason.DUPLICATE: "order_duplicate",
}


class Settlement:
    """Applies what was told in the caller's transaction, which is over the merchant's rows."""

    def __init__(self, announcer: MerchantAnnouncer) -> None:
        self._announcer = announcer

    async def take_in(self, uow: UnitOfWork, told: Told) -> None:
        """Take in what an event of a merchant's account, or a look at it, has told.

        Raises:
            FactRefused: it contradicts what was asked.
            NotThereYet: it speaks of a payment that is not told yet.
        """
        if told.reading.payment is not None:
            await self._measure(uow, told, told.reading.payment)
        for fact in told.reading.facts:
            if isinstance(fact, DisputeOpened | DisputeClosed) and not fact.inquiry:
                await self._dispute(uow, told, fact)

    async def settle(self, uow: UnitOfWork, book: Book, *, before: OrderView, at: datetime) -> None:
        """Make the order what its rows say, and tell whoever is to know; `at` is the provider's time of the change."""
        order = book.order
        was_paid, paying = order.paid, book.paying
        order.status = book.status
        if paying is not None:
            order.paid, order.paid_at = True, paying.completed_at
        if OrderView.of(book) == before:
            return
        order.updated_at = uow.now
        # Set to what it was, two facts of one event, it would be left to the database's clock.
        flag_modified(order, "updated_at")
        await _post_commission(uow, book, at=at)
        if order.paid and not was_paid:
            uow.audit("order.paid", actor_id=None, tenant_id=order.tenant_id, subject=("order", order.id))
            await self._announcer.order_paid(uow, order, paid_at=order.paid_at or at)
        self._announcer.order_updated(uow, book)
        await self._tell_of_money(uow, book, before)

    async def _measure(self, uow: UnitOfWork, told: Told, payment: PaymentState) -> None:
        order_id = await _order_of(uow, told, payment)
        if order_id is None:
            return
        book = await held_book(uow, order_id)
        before = OrderView.of(book)
        invoice = _invoice_of(uow, book, told, payment)
        _refuse_other_price(invoice, payment)
        invoice.measure(received=payment.received, overpaid=payment.overpaid, is_late=payment.is_late)
        _tell_refunds(book, invoice, payment)
        if payment.status is PaymentStatus.PAID:
            invoice.mark_paid(payment.paid_at or payment.changed_at)
        else:
            invoice.tell(CheckoutState(payment.status.value), at=payment.changed_at)
        await self.settle(uow, book, before=before, at=payment.changed_at)

    async def _dispute(self, uow: UnitOfWork, told: Told, fact: DisputeOpened | DisputeClosed) -> None:
        found = await uow.session.execute(
            select(OrderInvoice.id, OrderInvoice.order_id).where(
                OrderInvoice.tenant_id == told.tenant_id,
                OrderInvoice.provider == told.provider,
                OrderInvoice.session_id.in_([ref for ref in (fact.payment_ref, fact.charge_ref) if ref]),
            )
        )
        invoice_id, order_id = found.one_or_none() or (None, None)
        if invoice_id is None or order_id is None:
            raise NotThereYet("payment")
        book = await held_book(uow, order_id)
        before = OrderView.of(book)
        outcome = fact.outcome if isinstance(fact, DisputeClosed) else None
        known = next((row for row in book.disputes if row.dispute_ref == fact.dispute_ref), None)
        if known is None:
            known = OrderDispute(
                id=uuid4(),
                tenant_id=told.tenant_id,
                order_id=order_id,
                invoice_id=invoice_id,
                dispute_ref=fact.dispute_ref,
                amount=fact.amount,
                outcome=outcome,
                told_at=fact.occurred_at,
            )
            uow.session.add(known)
            book.disputes.append(known)
        else:
            known.tell(amount=fact.amount, outcome=outcome, at=fact.occurred_at)
        await self.settle(uow, book, before=before, at=fact.occurred_at)

    async def _tell_of_money(self, uow: UnitOfWork, book: Book, before: OrderView) -> None:
        order, after = book.order, OrderView.of(book)
        known = {(owed.invoice_id, owed.reason) for owed in before.owed}
        for owed in after.owed:
            if (owed.invoice_id, owed.reason) not in known:
                await self._announcer.order_news(uow, _OWED_NEWS[owed.reason], order, amount=owed.amount)
        if book.is_disputed and before.status != after.status:
            await self._announcer.order_news(uow, "order_disputed", order, amount=after.refunded)
        elif (more := Decimal(after.refunded) - Decimal(before.refunded)) > 0:
            await self._announcer.order_news(uow, "order_refunded", order, amount=plain_amount(more, order.currency))


async def _order_of(uow: UnitOfWork, told: Told, payment: PaymentState) -> UUID | None:
    """Return the order that a payment is of; None for what was not begun by us, such as other sales of the merchant."""
    tags = payment.tags
    if tags is None or tags.purchase is not None:
        return None
    if tags.tenant_id != told.tenant_id:
        raise FactRefused("another tenant's order", tenant_id=told.tenant_id)
    if payment.is_test:
        raise FactRefused("play money", tenant_id=told.tenant_id)
    order_id: UUID | None = await uow.session.scalar(
        select(OrderInvoice.order_id).where(OrderInvoice.id == tags.order_id)
    )
    return order_id


def _invoice_of(uow: UnitOfWork, book: Book, told: Told, payment: PaymentState) -> OrderInvoice:
    """Return the invoice that a payment is of.

    An answer of the provider that was lost may have left it with two invoices for one of ours: the second gets a row
    of its own. A merchant has one account at a provider, so provider and session name the invoice. Raises FactRefused.
    """
    mine = [row for row in book.invoices if row.provider == told.provider]
    known = next((row for row in mine if row.session_id == payment.session_id), None)
    if known is not None:
        # An account that was removed and set up anew has its invoices back, which removing it had left without one.
        known.integration_id = known.integration_id or told.integration_id
        return known
    begun = next((row for row in mine if payment.tags is not None and row.id == payment.tags.order_id), None)
    if begun is None:
        raise FactRefused("another account's invoice", tenant_id=told.tenant_id)
    if begun.session_id is None:
        # The event has overtaken the answer to our own request.
        begun.session_id, begun.integration_id = payment.session_id, told.integration_id
        return begun
    return add_twin(uow, book, begun, session_id=payment.session_id, integration_id=told.integration_id)


def add_twin(
    uow: UnitOfWork, book: Book, begun: OrderInvoice, *, session_id: str, integration_id: UUID | None
) -> OrderInvoice:
    """Keep a further invoice that the provider has made for the same request of ours."""
    twin = OrderInvoice(
        id=uuid4(),
        tenant_id=begun.tenant_id,
        order_id=begun.order_id,
        integration_id=integration_id,
        twin_of=begun.id,
        provider=begun.provider,
        session_id=session_id,
        amount=begun.amount,
        currency=begun.currency,
        commission_percent=begun.commission_percent,
        state=CheckoutState.PENDING,
        received=Decimal(0),
        overpaid=Decimal(0),
        refunded=Decimal(0),
        is_late=False,
        looks=0,
        created_at=begun.created_at,
    )
    uow.session.add(twin)
    book.invoices.append(twin)
    return twin


def _tell_refunds(book: Book, invoice: OrderInvoice, payment: PaymentState) -> None:
    """Take in what went back, and what became of the refunds that we have asked for."""
    mine = [row for row in book.refunds if row.invoice_id == invoice.id and row.refund_ref is not None]
    known_failed = {row.refund_ref for row in mine if row.state is RefundState.FAILED}
    if not known_failed <= payment.refunds_failed:
        # Fetched before a refund failed that we know to have failed, so that its total counts this one still.
        return
    failed = [row for row in mine if row.refund_ref in payment.refunds_failed - known_failed]
    for row in failed:
        row.state = RefundState.FAILED
    for row in mine:
        if row.state is RefundState.PENDING and row.refund_ref in payment.refunds_made:
            row.state = RefundState.MADE
    invoice.tell_refunded(payment.refunded, at=payment.changed_at, is_news=bool(failed))


def _refuse_other_price(invoice: OrderInvoice, payment: PaymentState) -> None:
    asked = (invoice.amount, invoice.currency)
    if (payment.asked, payment.currency.upper()) != asked:
        reason = f"asked {payment.asked} {payment.currency}, the order's invoice is {asked[0]} {asked[1]}"
        raise FactRefused(reason, tenant_id=invoice.tenant_id)


async def _post_commission(uow: UnitOfWork, book: Book, *, at: datetime) -> None:
    """Bring the commission of an order to what it should be: by a step in its log, and in the journal."""
    order, paying = book.order, book.paying
    if paying is None:
        return
    steps = (await uow.session.scalars(select(CommissionLog).where(CommissionLog.order_id == order.id))).all()
    more = book.commission - sum((step.commission_amount for step in steps), Decimal(0))
    # That an order was paid is logged even where nothing is ours of it.
    if more == 0 and steps:
        return
    uow.session.add(
        CommissionLog(
            id=uuid4(),
            tenant_id=order.tenant_id,
            order_id=order.id,
            number=len(steps) + 1,
            commission_percent=paying.commission_percent,
            commission_amount=more,
            kept_amount=book.kept,
            currency=order.currency,
            created_at=uow.now,
        )
    )
    fact = MoneyFact(
        tenant_id=order.tenant_id,
        provider=JOURNAL,
        kind=EntryKind.COMMISSION,
        key=str(order.id),
        currency=order.currency,
        occurred_at=at,
    )
    await journal.post(uow, fact, book.commission, may_fall=True)
