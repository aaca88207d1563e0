"""A shop that changes its plan."""

from typing import Any

from models.billing import BillingPeriod
from services.billing import ChangeOrder
from services.billing.views import ChangeView, QuoteView
from services.identity import Principal
from services.unit_of_work import RequestTrace, TenantScope
from tests.support.billing import CANCEL_URL, SUCCESS_URL, Shop, Till


async def order(till: Till, plan: str, period: BillingPeriod | None = None, *, pays: bool = True) -> ChangeOrder:
    return ChangeOrder(
        plan_id=(await till.plan(plan)).id,
        billing_period=period,
        success_url=SUCCESS_URL if pays else None,
        cancel_url=CANCEL_URL if pays else None,
    )


async def change(till: Till, actor: Principal, plan: str, period: BillingPeriod | None = None) -> ChangeView:
    return await till.billing.change_plan(actor, await order(till, plan, period), trace=RequestTrace())


async def preview(till: Till, actor: Principal, plan: str, period: BillingPeriod | None = None) -> QuoteView:
    assert actor.tenant_id is not None
    async with till.units(TenantScope(actor.tenant_id)) as uow:
        return await till.billing.preview_change(uow, actor, await order(till, plan, period))


async def pay(till: Till, view: ChangeView) -> list[Any]:
    assert view.session_id is not None
    return till.stripe.pay_checkout(view.session_id)


async def halfway(till: Till, shop: Shop) -> None:
    """Go to the middle of the paid period."""
    subscription = await till.subscription(shop)
    length = subscription.current_period_end - subscription.current_period_start
    till.clock.offset += subscription.current_period_start + length / 2 - till.now
