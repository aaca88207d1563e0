"""Finding merchants' accounts and orders: for showing, and under lock for changing."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, select

from models.merchants import PaymentIntegration
from models.orders import Order, OrderDispute, OrderInvoice, OrderRefund
from services.merchants.errors import OrderNotFound
from services.merchants.reckoning import Book, books_of
from services.unit_of_work import UnitOfWork


async def books(uow: UnitOfWork, orders: Sequence[Order]) -> list[Book]:
    """Return orders with all their rows, in the same order; three queries, however many there are."""
    ids = [order.id for order in orders]
    invoices = await uow.session.scalars(
        select(OrderInvoice)
        .where(OrderInvoice.order_id.in_(ids))
        .order_by(OrderInvoice.created_at, OrderInvoice.id)
        .execution_options(populate_existing=True)
    )
    disputes = await uow.session.scalars(select(OrderDispute).where(OrderDispute.order_id.in_(ids)))
    refunds = await uow.session.scalars(
        select(OrderRefund).where(OrderRefund.order_id.in_(ids)).order_by(OrderRefund.created_at, OrderRefund.id)
    )
    return books_of(orders, invoices=invoices.all(), disputes=disputes.all(), refunds=refunds.all())


async def held_book(uow: UnitOfWork, order_id: UUID) -> Book:
    """Return an order with all its rows, held until the unit of work ends; raises OrderNotFound.

    Whatever changes anything about an order takes this lock first, so that all of it happens one after the other.
    """
    order = await uow.session.scalar(
        select(Order)
        .where(Order.id == order_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if order is None:
        raise OrderNotFound
    (book,) = await books(uow, [order])
    return book


async def current_integration(uow: UnitOfWork, *conditions: ColumnElement[bool]) -> PaymentIntegration | None:
    """Return the account at which the tenant's orders are paid: the one that was chosen last."""
    found: PaymentIntegration | None = await uow.session.scalar(
        select(PaymentIntegration)
        .where(*conditions)
        .order_by(PaymentIntegration.chosen_at.desc(), PaymentIntegration.id)
        .limit(1)
    )
    return found
