"""One page of a sweep: the invoices of one merchant's account, against what its provider holds of them."""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import select, tuple_

from core.errors import Unavailable
from models.orders import OrderInvoice, OrderRefund, RefundState
from models.payment_progress import CheckoutState
from models.reconciliations import Reconciliation
from providers.payments import PaymentState, ProviderRejected, ProviderUnavailable, VerifiedEvent, saw_state
from services.billing.inbox import MerchantEvents
from services.billing.reconciling.accounts import INVOICES_OF, opened_account
from services.billing.reconciling.comparing import Part
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

_PAGE: Final = 20
# How long one account may take over a page: less than the lease of the sweep, which all the others wait for.
_PATIENCE_S: Final = 60.0
_LAST: Final = UUID(int=2**128 - 1)
_SCOPE: Final = PlatformScope("the invoices of every merchant are compared")

logger = structlog.get_logger(__name__)


async def compare_invoices(units: UnitOfWorkFactory, merchants: MerchantEvents | None, row: Reconciliation) -> Part:
    """Ask for invoices of one merchant's account.

    What answers there is the merchant's to keep up, so an account that does not is left out until the next sweep: it
    neither delays nor fails what is compared for the others.
    """
    invoices = await _page(units, row)
    if not invoices:
        return Part(events=(), checked=0, cursor=None)
    account, last = invoices[0].integration_id or _LAST, invoices[-1].id
    found: list[VerifiedEvent] = []
    checked = 0
    try:
        async with asyncio.timeout(_PATIENCE_S):
            provider = await opened_account(units, merchants, account)
            for invoice in invoices:
                state = await provider.fetch_payment(invoice.session_id or "")
                checked += 1
                if state is not None and not await _knows(units, invoice, state):
                    found.append(saw_state(state))
    except (ProviderUnavailable, ProviderRejected, Unavailable, TimeoutError) as fault:
        logger.warning("account not compared", provider=row.provider, account=str(account), reason=str(fault))
        last = _LAST
    return Part(events=found, checked=checked, cursor=f"{account}/{last}", integration_id=account)


async def _page(units: UnitOfWorkFactory, row: Reconciliation) -> Sequence[OrderInvoice]:
    """Return the invoices that follow the cursor, all of them of one account."""
    asked = select(OrderInvoice).where(
        OrderInvoice.provider == row.provider,
        OrderInvoice.integration_id.is_not(None),
        OrderInvoice.session_id.is_not(None),
        OrderInvoice.created_at > row.started_at - INVOICES_OF,
    )
    if row.cursor is not None:
        account, _, invoice = row.cursor.partition("/")
        asked = asked.where(tuple_(OrderInvoice.integration_id, OrderInvoice.id) > (UUID(account), UUID(invoice)))
    in_order = asked.order_by(OrderInvoice.integration_id, OrderInvoice.id).limit(_PAGE)
    async with units(_SCOPE) as uow:
        rows = (await uow.session.scalars(in_order)).all()
    return [invoice for invoice in rows if invoice.integration_id == rows[0].integration_id]


async def _knows(units: UnitOfWorkFactory, invoice: OrderInvoice, state: PaymentState) -> bool:
    """Tell whether an invoice stands as its provider has it, with what came, what went back, and how that ended."""
    asked = select(OrderRefund.refund_ref).where(
        OrderRefund.invoice_id == invoice.id, OrderRefund.state == RefundState.PENDING
    )
    async with units(_SCOPE) as uow:
        pending = set(await uow.session.scalars(asked))
    return (
        # Nothing is told any more of what is paid, and that more has come is told by the amounts.
        invoice.state in (CheckoutState.PAID, CheckoutState(state.status.value))
        and state.received <= invoice.received
        and state.refunded == invoice.refunded
        and not pending & (state.refunds_made | state.refunds_failed)
    )
