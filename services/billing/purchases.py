"""What was begun to be bought and what came of it, for the tenant; what is owed of it, for operators."""

from datetime import datetime
from decimal import Decimal
from typing import Self
from uuid import UUID

from sqlalchemy import func, select

from core.money import Money
from core.pagination import Page, PageRequest
from models.billing import (
    BillingPeriod,
    CheckoutKind,
    CheckoutSession,
    CheckoutState,
    Credit,
    CreditReason,
    Subscription,
)
from models.journal import EntryKind
from services.billing.actions import Action, actions_of_checkout
from services.billing.errors import CreditNotFound, CreditSettled
from services.billing.journal import MoneyFact, post, posted
from services.billing.lookup import locked_subscription
from services.billing.views import View
from services.identity import Principal, require_may, require_superuser, require_tenant
from services.permissions import Permission
from services.unit_of_work import UnitOfWork


class PurchaseView(View):
    """A purchase of a period or of a change.

    `received` is what has come so far, `overpaid` what nobody asked for, `url` where to pay.
    """

    id: UUID
    kind: CheckoutKind
    session_id: str | None
    provider: str
    plan_id: UUID
    billing_period: BillingPeriod
    amount: Money
    currency: str
    state: CheckoutState
    received: Money
    overpaid: Money
    is_late: bool
    url: str | None
    created_at: datetime
    expires_at: datetime | None
    completed_at: datetime | None
    available_actions: list[Action]

    @classmethod
    def of(cls, checkout: CheckoutSession) -> Self:
        received = checkout.amount if _is_paid_in_full(checkout) else checkout.received
        return cls(
            id=checkout.id,
            kind=checkout.kind,
            session_id=checkout.session_id,
            provider=checkout.provider,
            plan_id=checkout.plan_id,
            billing_period=checkout.billing_period,
            amount=checkout.amount,
            currency=checkout.currency,
            state=checkout.state,
            received=received,
            overpaid=checkout.overpaid,
            is_late=checkout.is_late,
            url=checkout.url if Action.PAY in actions_of_checkout(checkout) else None,
            created_at=checkout.created_at,
            expires_at=checkout.expires_at,
            completed_at=checkout.completed_at,
            available_actions=actions_of_checkout(checkout),
        )


class CreditView(View):
    """Money that bought nothing; `settled_at` is None while it must be given back or credited."""

    id: UUID
    tenant_id: UUID
    checkout_id: UUID
    provider: str
    payment_key: str
    reason: CreditReason
    amount: Money
    currency: str
    occurred_at: datetime
    settled_at: datetime | None

    @classmethod
    def of(cls, credit: Credit) -> Self:
        return cls(
            id=credit.id,
            tenant_id=credit.tenant_id,
            checkout_id=credit.checkout_id,
            provider=credit.provider,
            payment_key=credit.payment_key,
            reason=credit.reason,
            amount=credit.amount,
            currency=credit.currency,
            occurred_at=credit.occurred_at,
            settled_at=credit.settled_at,
        )


async def list_purchases(uow: UnitOfWork, actor: Principal, page: PageRequest) -> Page[PurchaseView]:
    """Show the tenant's purchases, newest first; for owners and admins."""
    tenant_id = require_tenant(actor)
    require_may(actor, Permission.INVOICES_READ)
    own = CheckoutSession.tenant_id == tenant_id
    total = await uow.session.scalar(select(func.count()).select_from(CheckoutSession).where(own))
    rows = await uow.session.scalars(
        select(CheckoutSession)
        .where(own)
        .order_by(CheckoutSession.created_at.desc(), CheckoutSession.id)
        .offset(page.offset)
        .limit(page.size)
    )
    return Page(items=[PurchaseView.of(row) for row in rows], total=total or 0, request=page)


async def list_credits(uow: UnitOfWork, actor: Principal, page: PageRequest) -> Page[CreditView]:
    """Show what is owed and not settled, oldest first; for superusers."""
    require_superuser(actor)
    is_open = Credit.settled_at.is_(None)
    total = await uow.session.scalar(select(func.count()).select_from(Credit).where(is_open))
    rows = await uow.session.scalars(
        select(Credit).where(is_open).order_by(Credit.occurred_at, Credit.id).offset(page.offset).limit(page.size)
    )
    return Page(items=[CreditView.of(row) for row in rows], total=total or 0, request=page)


async def settle_credit(uow: UnitOfWork, actor: Principal, *, credit_id: UUID) -> CreditView:
    """Note that money was given back or credited; for superusers. Raises CreditNotFound and CreditSettled."""
    require_superuser(actor)
    tenant_id: UUID | None = await uow.session.scalar(select(Credit.tenant_id).where(Credit.id == credit_id))
    if tenant_id is None:
        raise CreditNotFound
    # What a payment amounts to is measured under this lock, and a credit may change or vanish with it.
    await locked_subscription(uow, Subscription.tenant_id == tenant_id)
    credit = await uow.session.scalar(select(Credit).where(Credit.id == credit_id).with_for_update())
    if credit is None:
        raise CreditNotFound
    if credit.settled_at is not None:
        raise CreditSettled
    credit.settled_at = uow.now
    settled = MoneyFact(
        tenant_id=credit.tenant_id,
        provider=credit.provider,
        kind=EntryKind.CREDIT_SETTLED,
        key=str(credit.id),
        currency=credit.currency,
        occurred_at=uow.now,
    )
    before = await posted(uow, provider=settled.provider, kind=settled.kind, key=settled.key)
    await post(uow, settled, before + credit.amount)
    uow.audit(
        "credit.settled",
        actor_id=actor.user_id,
        tenant_id=credit.tenant_id,
        subject=("credit", credit.id),
        details={"reason": credit.reason.value, "amount": str(credit.amount), "currency": credit.currency},
    )
    return CreditView.of(credit)


def _is_paid_in_full(checkout: CheckoutSession) -> bool:
    # Providers that tell by events alone name no amounts beside what was asked.
    return checkout.state is CheckoutState.PAID and checkout.received == Decimal(0)
