"""Deeds of those who buy, of those who sell, and of the platform's people."""

from dataclasses import replace
from decimal import Decimal
from io import BytesIO
from uuid import UUID, uuid4

from aiohttp import FormData
from sqlalchemy import select, update

from models.billing import CheckoutSession, PaymentEvent, PaymentEventType, Subscription
from models.credits import Credit, CreditReason
from models.inbox import InboxState, ProviderEvent
from models.users import User
from tests.handlers.deeds.stage import PASSWORD, SCOPE, Deed, Play, Stage, succeeded
from tests.handlers.provisioned import with_site
from tests.handlers.test_sandbox import check_out as open_checkout
from tests.support.billing import eventually
from tests.support.people import Person
from tests.support.phones import HEADERS, new_phone

BILLING = "/api/v1/billing"
BOSS = "/api/v1/super-admin"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
REASON = {"reason": "A test asks for it"}
RETURNING = {"payment_provider": "sandbox", "success_url": "myapp://ok", "cancel_url": "myapp://no"}


async def check_out(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), json={**RETURNING, "plan_id": await stage.plan_id()})


async def subscribe(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), path={"plan_id": await stage.plan_id()}, json=RETURNING)


async def of_company(stage: Stage) -> Deed:
    return Deed(by=await stage.company())


async def reinstate_plan(stage: Stage) -> Deed:
    owner = await stage.company()
    succeeded(await owner.post("billing/cancel"))
    return Deed(by=owner)


async def change_own_plan(stage: Stage) -> Deed:
    """Take a smaller plan, which begins when what was paid is used up."""
    return Deed(by=await payer(stage), json={"plan_id": await stage.plan_id("professional")})


async def withdraw_change(stage: Stage) -> Deed:
    owner = await payer(stage)
    succeeded(await owner.post("billing/change-plan", {"plan_id": await stage.plan_id("professional")}))
    return Deed(by=owner)


async def payer(stage: Stage) -> Person:
    """Return somebody who has bought the larger plan."""
    owner = await stage.company()
    page = await open_checkout(owner)
    async with stage.http.post(page, data={"action": "pay"}, allow_redirects=False) as response:
        assert response.status == 303

    async def status() -> object:
        return succeeded(await owner.get("billing/subscription"))["data"]["status"]

    await eventually(status, lambda shown: shown == "active")
    return owner


async def set_price(stage: Stage) -> Deed:
    body = {"provider": "sandbox", "amount": "1234.50", "currency": "RUB"}
    return Deed(by=await stage.boss(), path={"plan_id": await new_plan(stage, await stage.boss())}, json=body)


async def settle(stage: Stage) -> Deed:
    owner = await stage.company()
    succeeded(await owner.post("billing/checkout", {**RETURNING, "plan_id": await stage.plan_id()}))
    async with stage.orchestrator.units(SCOPE) as uow:
        checkout_id = await uow.session.scalar(
            select(CheckoutSession.id).where(CheckoutSession.tenant_id == owner.tenant_id)
        )
        credit = Credit(
            id=uuid4(),
            tenant_id=owner.tenant_id,
            checkout_id=checkout_id,
            provider="sandbox",
            payment_key=uuid4().hex,
            reason=CreditReason.OVERPAID,
            amount=Decimal("1.00"),
            currency="USD",
            occurred_at=uow.now,
        )
        uow.session.add(credit)
    return Deed(by=await stage.boss(), path={"credit_id": credit.id}, tenant=owner.tenant_id)


async def refund_payment(stage: Stage) -> Deed:
    owner = await stage.company()
    async with stage.orchestrator.units(SCOPE) as uow:
        subscription_id = await uow.session.scalar(
            select(Subscription.id).where(Subscription.tenant_id == owner.tenant_id)
        )
        payment = PaymentEvent(
            id=uuid4(),
            tenant_id=owner.tenant_id,
            subscription_id=subscription_id,
            event_type=PaymentEventType.PAYMENT_SUCCESS,
            amount=Decimal("49.99"),
            currency="USD",
            provider="coinbase_commerce",
            provider_event_id=uuid4().hex,
            fact_key=uuid4().hex,
            event_metadata={},
            created_at=uow.now,
        )
        uow.session.add(payment)
    by = await stage.boss()
    return Deed(by=by, path={"payment_id": payment.id}, json={"amount": "10.00"}, tenant=owner.tenant_id)


async def resend(stage: Stage) -> Deed:
    async with stage.orchestrator.units(SCOPE) as uow:
        event = ProviderEvent(
            id=uuid4(),
            provider="sandbox",
            event_id=uuid4().hex,
            type="nothing.happened",
            payload={"id": "evt_1"},
            occurred_at=uow.now,
            received_at=uow.now,
            state=InboxState.DEAD,
            attempts=1,
            next_attempt_at=uow.now,
        )
        uow.session.add(event)
    return Deed(by=await stage.boss(), path={"event_id": event.id})


async def enter_site(stage: Stage) -> Deed:
    return Deed(by=await with_site(stage.company))


async def redeem(stage: Stage) -> Deed:
    owner = await with_site(stage.company)
    token = succeeded(await owner.post("sso/erpnext/token"))["token"]
    return Deed(query=f"token={token}", actor=owner.user_id, tenant=owner.tenant_id)


async def activate(stage: Stage) -> Deed:
    boss, person = await stage.boss(), await stage.company()
    succeeded(await boss.request("PUT", f"super-admin/users/{person.user_id}/deactivate"))
    return Deed(by=boss, path={"user_id": person.user_id}, json=REASON)


async def about_user(stage: Stage) -> Deed:
    person = await stage.company()
    return Deed(by=await stage.boss(), path={"user_id": person.user_id}, json=REASON)


async def impersonate(stage: Stage) -> Deed:
    boss, person = await stage.boss(), await stage.company()
    # The token in the answer is the other's.
    actor, tenant = boss.user_id, person.tenant_id
    return Deed(by=boss, path={"user_id": person.user_id}, json=REASON, actor=actor, tenant=tenant)


async def suspend(stage: Stage) -> Deed:
    person = await stage.company()
    path = {"tenant_id": person.tenant_id}
    return Deed(by=await stage.boss(), path=path, json=REASON, tenant=person.tenant_id)


async def reinstate(stage: Stage) -> Deed:
    deed = await suspend(stage)
    assert deed.by is not None
    succeeded(await deed.by.request("PUT", f"super-admin/tenants/{deed.tenant}/suspend", json=REASON))
    return deed


async def make_exception(stage: Stage) -> Deed:
    person = await stage.company()
    return Deed(
        by=await stage.boss(),
        path={"tenant_id": person.tenant_id, "name": "users"},
        json={"value": 7, **REASON},
        tenant=person.tenant_id,
    )


async def take_exception_back(stage: Stage) -> Deed:
    deed = await make_exception(stage)
    assert deed.by is not None
    succeeded(await deed.by.request("PUT", f"super-admin/tenants/{deed.tenant}/entitlements/users", json=deed.json))
    return replace(deed, json=None)


async def buy_by_name(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), json={"planId": "business-monthly", "currency": "USD"})


async def connect_account(stage: Stage) -> Deed:
    keys = {"apiKey": "a key of a test", "webhookSecret": "a secret of a test"}
    return Deed(by=await stage.company(), json={"provider": "coinbase_commerce", **keys})


async def remove_account(stage: Stage) -> Deed:
    deed = await connect_account(stage)
    assert deed.by is not None
    succeeded(await deed.by.post("/api/tenant/payments/provider", deed.json))
    return replace(deed, json=None)


async def create_order(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), json={"amount": "49.90", "currency": "USD"})


async def make_master(stage: Stage) -> Deed:
    body = {"phone": new_phone(), "password": PASSWORD, "role": "platform_master"}
    return Deed(by=await stage.boss(), json=body)


async def register_master(stage: Stage) -> Deed:
    return Deed(by=await stage.boss(), json={"phone": new_phone(), "password": PASSWORD})


async def staff_login(stage: Stage) -> Deed:
    boss = await stage.boss()
    return Deed(json={"login": boss.email, "password": boss.password}, actor=boss.user_id, tenant=boss.tenant_id)


async def master_login(stage: Stage) -> Deed:
    boss = await stage.boss()
    async with stage.orchestrator.units(SCOPE) as uow:
        await uow.session.execute(update(User).where(User.id == boss.user_id).values(is_platform_master=True))
    return Deed(json={"login": boss.email, "password": boss.password}, actor=boss.user_id, tenant=boss.tenant_id)


async def reset_factor(stage: Stage) -> Deed:
    person, _ = await stage.guarded()
    return Deed(by=await stage.boss(), path={"user_id": person.user_id}, json=REASON)


async def change_details(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), json={"name": "Acme GmbH", "country": "DE"})


async def change_tariff(stage: Stage) -> Deed:
    boss = await stage.boss()
    tariffs = succeeded(await boss.get("super-admin/tariffs"))["tariffs"]
    return Deed(by=boss, path={"tariff_id": tariffs[0]["id"]}, json={"name": tariffs[0]["name"]})


def plan_form() -> dict[str, object]:
    """Return a plan that is new."""
    return {"slug": f"p-{uuid4().hex[:12]}", "name": "Tested", "price_monthly": "10.00", "price_yearly": "100.00"}


async def new_plan(stage: Stage, boss: Person, *, retired: bool = True) -> UUID:
    """Return a plan of its own, so that nobody else's test finds another one for sale."""
    made = succeeded(await boss.post("super-admin/plans", plan_form()))["data"]
    if retired:
        succeeded(await boss.request("PUT", f"super-admin/plans/{made['id']}/retire"))
    return UUID(made["id"])


async def create_plan(stage: Stage) -> Deed:
    return Deed(by=await stage.boss(), json=plan_form())


async def change_plan(stage: Stage) -> Deed:
    boss = await stage.boss()
    return Deed(by=boss, path={"plan_id": await new_plan(stage, boss)}, json={"name": "Renamed"})


async def retire_plan(stage: Stage) -> Deed:
    boss = await stage.boss()
    return Deed(by=boss, path={"plan_id": await new_plan(stage, boss, retired=False)})


async def restore_plan(stage: Stage) -> Deed:
    boss = await stage.boss()
    return Deed(by=boss, path={"plan_id": await new_plan(stage, boss)})


async def write_content(stage: Stage) -> Deed:
    content = {"title": "A test", "bot": {"api_token": "of somebody who put it in the wrong place"}}
    return Deed(by=await stage.boss(), path={"key": "audited"}, json={"content": content})


async def upload(stage: Stage) -> Deed:
    form = FormData()
    form.add_field("file", BytesIO(PNG), filename="a.png", content_type="image/png")
    return Deed(by=await stage.boss(), data=form)


async def show_phone(stage: Stage) -> Deed:
    """Show one's phone to a bot, at a server that has one."""
    telegram, headers = stage.world.telegram, HEADERS["telegram"]
    person = telegram.person(new_phone())
    # The bot asks for the phone before anybody shows it.
    await stage.world.update("telegram", telegram.write(person, "/start"))
    body = telegram.share_own_contact(person)
    return Deed(path={"messenger": "telegram"}, json=body, headers=headers, url=stage.bots_url)


DEEDS: dict[str, Play] = {
    f"POST {BILLING}/checkout": check_out,
    f"POST {BILLING}/plans/{{plan_id}}/subscribe": subscribe,
    f"POST {BILLING}/cancel": of_company,
    f"PUT {BILLING}/details": change_details,
    "POST /api/v1/platform/login": master_login,
    f"POST {BOSS}/login": staff_login,
    "POST /api/v1/platform/register-master": register_master,
    f"POST {BOSS}/users/{{user_id}}/reset-second-factor": reset_factor,
    f"POST {BILLING}/reinstate": reinstate_plan,
    f"POST {BILLING}/change-plan": change_own_plan,
    f"DELETE {BILLING}/change-plan": withdraw_change,
    f"POST {BILLING}/plans/{{plan_id}}/prices": set_price,
    f"POST {BILLING}/credits/{{credit_id}}/settle": settle,
    f"POST {BILLING}/payments/{{payment_id}}/refund": refund_payment,
    f"POST {BILLING}/provider-events/{{event_id}}/resend": resend,
    "POST /api/v1/sso/erpnext/token": enter_site,
    "GET /api/v1/sso/erpnext/callback": redeem,
    f"PUT {BOSS}/users/{{user_id}}/activate": activate,
    f"PUT {BOSS}/users/{{user_id}}/deactivate": about_user,
    f"POST {BOSS}/users/{{user_id}}/impersonate": impersonate,
    f"PUT {BOSS}/tenants/{{tenant_id}}/suspend": suspend,
    f"PUT {BOSS}/tenants/{{tenant_id}}/reinstate": reinstate,
    f"PUT {BOSS}/tenants/{{tenant_id}}/entitlements/{{name}}": make_exception,
    f"DELETE {BOSS}/tenants/{{tenant_id}}/entitlements/{{name}}": take_exception_back,
    "POST /api/billing/subscribe": buy_by_name,
    "POST /api/tenant/payments/provider": connect_account,
    "DELETE /api/tenant/payments/provider": remove_account,
    "POST /api/tenant/orders": create_order,
    "POST /api/v1/users": make_master,
    f"PUT {BOSS}/tariffs/{{tariff_id}}": change_tariff,
    f"POST {BOSS}/plans": create_plan,
    f"PATCH {BOSS}/plans/{{plan_id}}": change_plan,
    f"PUT {BOSS}/plans/{{plan_id}}/retire": retire_plan,
    f"PUT {BOSS}/plans/{{plan_id}}/restore": restore_plan,
    "PUT /api/v1/platform/content/{key}": write_content,
    "POST /api/v1/platform/content/upload": upload,
    "POST /api/v1/messengers/{messenger}/webhook": show_phone,
}
