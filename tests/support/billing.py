"""Billing built by hand on the shared database: a Stripe of its own, a clock of its own, and a worker one can step."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from core.pagination import PageRequest
from models.audit import AuditEntry
from models.billing import (
    BillingPeriod,
    CheckoutSession,
    Credit,
    Invoice,
    PaymentEvent,
    Plan,
    ProviderInstruction,
    Subscription,
)
from models.documents import Document
from models.inbox import ProviderEvent
from models.notifications import Notification
from models.tenants import Membership, Role, Tenant, TenantStatus
from models.users import User
from providers.mail import Letter
from providers.payments import PaymentProvider
from providers.payments.sandbox import SIGNATURE_HEADER, SandboxProvider
from providers.payments.stripe_adapter import StripeProvider
from realtime.log import NumberedEvent
from services.billing import BillingService, CheckoutOrder
from services.billing.journal import balances
from services.billing.sandbox import SandboxAction
from services.billing.views import CheckoutView, InvoiceView, SubscriptionView
from services.documents import DocumentLinks, DocumentService, Issuer
from services.identity import Principal
from services.mail import MailService
from services.notifications import NotificationService
from services.unit_of_work import PlatformScope, RequestTrace, TenantScope, UnitOfWorkFactory, guard_tenants
from tests.fakes.stripe_api import FakeStripe
from tests.fakes.stripe_objects import Obj
from tests.support.clock import MovableClock
from tests.support.spine import Ears

T = TypeVar("T")

ISSUER = Issuer(name="Platform", address="1 High Street", tax_id="X 1", series="INV", tax_rate=Decimal(0))
LINKS = DocumentLinks([b"a key for tests"], public_url="http://localhost")

PLATFORM = PlatformScope("a test looks at everything")
SUCCESS_URL = "https://shop.example/success?session={CHECKOUT_SESSION_ID}"
CANCEL_URL = "https://shop.example/cancel"

# What differs between two runs of one story without anybody caring.
_OWN_IDS = {"id", "tenant_id", "plan_id", "checkout_id", "subscription_id", "payment_id", "created_by"}
_OUR_CLOCK = {"created_at", "updated_at", "next_poll_at", "entitlements_told_at", "overdue_since", "dunned"}


class Unsent:
    """A transport that nobody asks to send anything."""

    async def send(self, letter: Letter) -> None:
        raise NotImplementedError


@dataclass(slots=True)
class Shop:
    """One tenant with its people."""

    tenant_id: UUID
    owner: Principal
    admin: Principal
    member: Principal


@dataclass(slots=True)
class Till:
    """The service under test and the things it was given."""

    units: UnitOfWorkFactory
    clock: MovableClock
    ears: Ears
    stripe: FakeStripe
    billing: BillingService
    documents: DocumentService
    sandbox: SandboxProvider
    providers: dict[str, PaymentProvider]
    _stepped: int = field(default=0)

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def travel(self, **delta: float) -> None:
        """Move time on, for us and for Stripe."""
        self.clock.offset += timedelta(**delta)

    # ----------------------------------------------------------------------------------------- people

    async def shop(self, *, locale: str = "en") -> Shop:
        """Found a tenant with an owner, an admin and a member, on its trial."""
        tenant_id = uuid4()
        actors: dict[Role, Principal] = {}
        async with self.units(PLATFORM) as uow:
            tenant = Tenant(
                id=tenant_id,
                name="Shop",
                slug=f"shop-{tenant_id.hex}",
                status=TenantStatus.ACTIVE,
                settings={},
            )
            uow.session.add(tenant)
            # Memberships name their users by id alone, so the users must be there first.
            await uow.session.flush()
            for role in (Role.OWNER, Role.ADMIN, Role.MEMBER):
                actors[role] = await self._person(uow.session, tenant_id, role, locale)
            await self.billing.start_trial(uow, tenant)
        return Shop(tenant_id, actors[Role.OWNER], actors[Role.ADMIN], actors[Role.MEMBER])

    async def _person(self, session: AsyncSession, tenant_id: UUID, role: Role, locale: str) -> Principal:
        user = User(
            id=uuid4(),
            email=f"{role.value}-{tenant_id.hex}@example.org",
            hashed_password="-",
            full_name=role.value.title(),
            is_active=True,
            is_superuser=False,
            locale=locale,
        )
        session.add(user)
        await session.flush()
        session.add(Membership(id=uuid4(), tenant_id=tenant_id, user_id=user.id, role=role, is_default=True))
        return Principal(
            user_id=user.id,
            session_id=uuid4(),
            tenant_id=tenant_id,
            role=role,
            is_superuser=False,
        )

    # ------------------------------------------------------------------------------------------ doors

    async def plan(self, slug: str = "professional") -> Plan:
        async with self.units(PLATFORM) as uow:
            await self.billing.seed_plans(uow)
            return (await uow.session.scalars(select(Plan).where(Plan.slug == slug))).one()

    async def checkout(
        self,
        actor: Principal,
        *,
        plan: str = "professional",
        period: BillingPeriod = BillingPeriod.MONTHLY,
        provider: str | None = None,
    ) -> CheckoutView:
        """Begin to buy a plan."""
        order = CheckoutOrder(
            plan_id=(await self.plan(plan)).id,
            billing_period=period,
            provider=provider,
            success_url=SUCCESS_URL,
            cancel_url=CANCEL_URL,
        )
        return await self.billing.checkout(actor, order, trace=RequestTrace())

    async def buy(self, shop: Shop, **order: Any) -> str:
        """Buy a plan by Stripe to the end; returns Stripe's subscription id."""
        view = await self.checkout(shop.owner, **order)
        await self.take(*self.stripe.pay_checkout(view.session_id))
        subscription_id: str = self.stripe.sessions[view.session_id]["subscription"]
        return subscription_id

    async def cancel(
        self, actor: Principal, *, at_period_end: bool = True, reason: str | None = None
    ) -> SubscriptionView:
        return await self.billing.cancel(actor, reason=reason, at_period_end=at_period_end, trace=RequestTrace())

    async def invoices(self, actor: Principal, page: PageRequest | None = None) -> list[InvoiceView]:
        async with self.units(TenantScope(_tenant_of(actor))) as uow:
            return list((await self.billing.invoices(uow, actor, page or PageRequest())).items)

    async def view(self, actor: Principal) -> SubscriptionView:
        async with self.units(TenantScope(_tenant_of(actor))) as uow:
            return await self.billing.subscription(uow, actor)

    # --------------------------------------------------------------------------------------- webhooks

    async def receive(self, event: Obj, *, signature: str | None = None) -> bool:
        """Bring a Stripe event to the inbox; returns whether it was new."""
        body = self.stripe.encode(event)
        headers = {"Stripe-Signature": signature or self.stripe.sign(body)}
        return await self.billing.receive("stripe", body=body, headers=headers, trace=RequestTrace())

    async def receive_sandbox(self, body: bytes) -> bool:
        """Bring a sandbox event to the inbox; returns whether it was new."""
        headers = {SIGNATURE_HEADER: self.sandbox.sign(body, self.now)}
        return await self.billing.receive("sandbox", body=body, headers=headers, trace=RequestTrace())

    async def take(self, *events: Obj) -> None:
        """Receive events and let the worker apply each, in this order."""
        for event in events:
            await self.receive(event)
            await self.work()

    async def work(self) -> None:
        """Let the worker do what the bell has rung for since the last time."""
        tasks = [task for task in self.ears.tasks[self._stepped :] if task.name == "billing.apply"]
        self._stepped = len(self.ears.tasks)
        for task in tasks:
            await self.billing.apply(task.row_id)

    async def retry(self, *events: Obj) -> None:
        """Let the worker try events once more, as if their time had come."""
        for event in events:
            await self.billing.apply((await self.event_row(event["id"])).id)

    # -------------------------------------------------------------------------------------- the books

    async def event_row(self, event_id: str) -> ProviderEvent:
        return await self._one(select(ProviderEvent).where(ProviderEvent.event_id == event_id))

    async def subscription(self, shop: Shop) -> Subscription:
        return await self._one(select(Subscription).where(Subscription.tenant_id == shop.tenant_id))

    async def checkouts(self, shop: Shop) -> list[CheckoutSession]:
        return await self._rows(
            select(CheckoutSession)
            .where(CheckoutSession.tenant_id == shop.tenant_id)
            .order_by(CheckoutSession.created_at)
        )

    async def payments(self, shop: Shop) -> list[PaymentEvent]:
        return await self._rows(
            select(PaymentEvent)
            .where(PaymentEvent.tenant_id == shop.tenant_id)
            .order_by(PaymentEvent.created_at, PaymentEvent.fact_key)
        )

    async def bills(self, shop: Shop) -> list[Invoice]:
        return await self._rows(
            select(Invoice).where(Invoice.tenant_id == shop.tenant_id).order_by(Invoice.provider_invoice_id)
        )

    async def papers(self, shop: Shop) -> list[Document]:
        return await self._rows(
            select(Document).where(Document.tenant_id == shop.tenant_id).order_by(Document.year, Document.place)
        )

    async def orders(self, shop: Shop) -> list[ProviderInstruction]:
        return await self._rows(
            select(ProviderInstruction)
            .where(ProviderInstruction.tenant_id == shop.tenant_id)
            .order_by(ProviderInstruction.created_at)
        )

    async def credits(self, shop: Shop) -> list[Credit]:
        return await self._rows(select(Credit).where(Credit.tenant_id == shop.tenant_id).order_by(Credit.occurred_at))

    async def balance(self, shop: Shop, account: str) -> Decimal:
        """Return what an account holds in the tenant's one currency: debits less credits."""
        async with self.units(TenantScope(shop.tenant_id)) as uow:
            held = await balances(uow, shop.tenant_id)
        return sum((amount for (name, _), amount in held.items() if name == account), Decimal(0))

    async def notifications(self, shop: Shop, *, papers: bool = False) -> list[Notification]:
        """Return what a tenant's people were told: of their papers, or of everything else."""
        is_paper = Notification.data["news"].as_string() == "invoice_issued"
        return await self._rows(
            select(Notification)
            .where(Notification.tenant_id == shop.tenant_id, is_paper if papers else ~is_paper)
            .order_by(Notification.created_at)
        )

    async def audit(self, shop: Shop) -> list[str]:
        rows = await self._rows(
            select(AuditEntry).where(AuditEntry.tenant_id == shop.tenant_id).order_by(AuditEntry.id)
        )
        return [row.action for row in rows]

    def heard(self, shop: Shop, name: str) -> list[NumberedEvent]:
        """Return the events of a name that a tenant's people heard."""
        return [event for event in self.ears.events if event.tenant_id == shop.tenant_id and event.name == name]

    async def state(self, shop: Shop) -> dict[str, Any]:
        """Return everything that the facts of a story may lead to, comparable between orders of arrival."""
        return {
            "subscription": _columns(await self.subscription(shop)),
            "checkouts": [_columns(row) for row in await self.checkouts(shop)],
            "payments": [_columns(row) for row in await self.payments(shop)],
            "invoices": [_columns(row) for row in await self.bills(shop)],
            "orders": [row.subscription_ref for row in await self.orders(shop)],
            "payments heard": [event.payload["amount"] for event in self.heard(shop, "payment:received")],
        }

    async def _rows(self, statement: Any) -> list[Any]:
        async with self.units(PLATFORM) as uow:
            return list(await uow.session.scalars(statement))

    async def _one(self, statement: Any) -> Any:
        async with self.units(PLATFORM) as uow:
            return (await uow.session.scalars(statement)).one()

    async def change(self, row_type: Any, row_id: UUID, **values: Any) -> None:
        """Set columns behind everybody's back."""
        async with self.units(PLATFORM) as uow:
            row = await uow.session.get_one(row_type, row_id)
            for name, value in values.items():
                setattr(row, name, value)


def build_till(
    engine: AsyncEngine, stripe: FakeStripe, clock: MovableClock, *, issuer: Issuer = ISSUER, **options: Any
) -> Till:
    """Build the service over a fake Stripe and the sandbox; `options` go to the Stripe adapter."""
    ears = Ears()
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, autoflush=False)
    guard_tenants(sessions)
    units = UnitOfWorkFactory(sessions, clock=clock, bell=ears, ringer=ears)
    sandbox = SandboxProvider("a secret for tests", "http://localhost", clock=clock)
    adapter = StripeProvider(
        secret_key=stripe.secret_key,
        webhook_secrets=[stripe.webhook_secret],
        api_base=stripe.base_url,
        # So patient that no machine is too slow: who is given up waits for a retry, which few tests are about.
        **{"timeout_s": 60.0, "max_network_retries": 0, **options},
    )
    providers: dict[str, PaymentProvider] = {"stripe": adapter, "sandbox": sandbox}
    notifications = NotificationService()
    mail = MailService(units, Unsent())
    documents = DocumentService(
        units=units,
        issuer=issuer,
        links=LINKS,
        mail=mail,
        notifications=notifications,
    )
    billing = BillingService(
        units=units,
        providers=providers,
        default_provider="stripe",
        notifications=notifications,
        documents=documents,
        mail=mail,
    )
    return Till(
        units=units,
        clock=clock,
        ears=ears,
        stripe=stripe,
        billing=billing,
        documents=documents,
        sandbox=sandbox,
        providers=providers,
    )


async def press_sandbox(till: Till, shop: Shop, action: str, **order: Any) -> None:
    """Begin to buy a plan by the sandbox, press a button of its page, and let the worker do the rest."""
    view = await till.checkout(shop.owner, provider="sandbox", **order)
    address = urlsplit(view.checkout_url)
    token = dict(parse_qsl(address.query))["token"]
    async with till.units(PLATFORM) as uow:
        event = await till.billing.sandbox.act(uow, SandboxAction(action), session_id=view.session_id, token=token)
    await till.receive_sandbox(event.body)
    await till.work()


def moment(unix: int) -> datetime:
    return datetime.fromtimestamp(unix, UTC)


def money(text: str) -> Decimal:
    return Decimal(text)


def _columns(row: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in ((column.key, getattr(row, column.key)) for column in row.__table__.columns)
        if name not in _OWN_IDS | _OUR_CLOCK or (name == "created_at" and isinstance(row, PaymentEvent))
    }


def _tenant_of(actor: Principal) -> UUID:
    assert actor.tenant_id is not None
    return actor.tenant_id


async def eventually(look: Callable[[], Awaitable[T]], true: Callable[[T], object], *, seconds: float = 20.0) -> T:
    """Look again and again until what is seen is so; returns it, or fails telling what was seen last."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not true(seen := await look()):
        assert asyncio.get_running_loop().time() < deadline, seen
        await asyncio.sleep(0.05)
    return seen
