"""Orders of a merchant's customers: made, shown and listed. Paying them is told in `paying.py`."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from core.errors import InvalidInput
from core.money import is_payable
from core.pagination import PageRequest
from models.merchants import CommissionLog
from models.orders import Order, OrderStatus
from services.billing.plans import require_currency
from services.closed_tenants import require_not_ending
from services.identity import Principal, require_permission, require_tenant
from services.merchants.errors import OrderExists, OrderNotFound
from services.merchants.lookup import books
from services.merchants.views import CommissionListView, CommissionView, OrderListView, OrderView
from services.permissions import Permission
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderInput:
    """What a customer owes; `currency` is upper case, `external_reference` the merchant's own name for the order."""

    amount: Decimal
    currency: str
    items: list[dict[str, Any]]
    note: str | None
    external_reference: str | None


async def create_order(uow: UnitOfWork, actor: Principal, wanted: OrderInput) -> OrderView:
    """Make an order; for owners and admins.

    Raises TenantDeleted, UnknownCurrency, InvalidInput when the amount does not fit its currency, and OrderExists.
    """
    tenant_id = _manager_of(actor)
    await require_not_ending(uow, tenant_id)
    require_currency(wanted.currency)
    if not is_payable(wanted.amount, wanted.currency):
        problem = {"field": "body -> amount", "message": f"is no price in {wanted.currency}", "type": "value_error"}
        raise InvalidInput(details={"errors": [problem]})
    # Of two that bear one reference, the database decides which was first.
    order = await uow.session.scalar(
        insert(Order)
        .values(
            id=uuid4(),
            tenant_id=tenant_id,
            amount=wanted.amount,
            currency=wanted.currency,
            status=OrderStatus.PENDING,
            items=wanted.items,
            note=wanted.note,
            external_reference=wanted.external_reference,
            paid=False,
            created_by=actor.user_id,
            created_at=uow.now,
            updated_at=uow.now,
        )
        .on_conflict_do_nothing()
        .returning(Order)
    )
    if order is None:
        raise OrderExists
    uow.audit(
        "order.created",
        actor_id=actor.user_id,
        tenant_id=tenant_id,
        subject=("order", order.id),
        details={"amount": str(order.amount), "currency": order.currency},
    )
    (book,) = await books(uow, [order])
    return OrderView.of(book)


async def show_order(uow: UnitOfWork, actor: Principal, *, order_id: UUID) -> OrderView:
    """Show an order; for owners and admins. Raises OrderNotFound."""
    _manager_of(actor)
    order = await uow.session.get(Order, order_id)
    if order is None:
        raise OrderNotFound
    (book,) = await books(uow, [order])
    return OrderView.of(book)


async def list_orders(
    uow: UnitOfWork, actor: Principal, page: PageRequest, *, status: OrderStatus | None, reference: str | None
) -> OrderListView:
    """Show the tenant's orders, newest first; for owners and admins."""
    own = [Order.tenant_id == _manager_of(actor)]
    if status is not None:
        own.append(Order.status == status)
    if reference is not None:
        own.append(Order.external_reference == reference)
    total = await uow.session.scalar(select(func.count()).select_from(Order).where(*own))
    rows = await uow.session.scalars(
        select(Order).where(*own).order_by(Order.created_at.desc(), Order.id).offset(page.offset).limit(page.size)
    )
    found = await books(uow, rows.all())
    return OrderListView(items=[OrderView.of(book) for book in found], total=total or 0, page=page.page, size=page.size)


async def list_commissions(uow: UnitOfWork, actor: Principal, page: PageRequest) -> CommissionListView:
    """Show what the platform's share of the tenant's orders is made of, newest first; for owners and admins."""
    own = CommissionLog.tenant_id == _manager_of(actor)
    total = await uow.session.scalar(select(func.count()).select_from(CommissionLog).where(own))
    rows = await uow.session.scalars(
        select(CommissionLog)
        .where(own)
        .order_by(CommissionLog.created_at.desc(), CommissionLog.order_id, CommissionLog.number.desc())
        .offset(page.offset)
        .limit(page.size)
    )
    return CommissionListView(
        items=[CommissionView.of(row) for row in rows], total=total or 0, page=page.page, size=page.size
    )


def _manager_of(actor: Principal) -> UUID:
    tenant_id = require_tenant(actor)
    require_permission(actor.role, Permission.ORDERS_MANAGE)
    return tenant_id
