"""A process of its own that issues papers for several tenants at once, half of which never come to be.

Between them it does what use cases without papers do, in the same tenants, to find whoever would wait in a circle.

Arguments: the database, the series, how many papers to begin, and the ids of subscriptions.
"""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from decimal import Decimal
from uuid import UUID, uuid4

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from core.clock import SystemClock
from models.billing import BillingPeriod, PaymentEvent, PaymentEventType, Subscription
from server.database import create_engine
from services.documents import DocumentLinks, DocumentService, Issuer, Sale
from services.mail import MailService
from services.notifications import NotificationService
from services.unit_of_work import PlatformScope, UnitOfWorkFactory, guard_tenants
from tests.support.billing import Unsent
from tests.support.spine import Ears, Said

SCOPE = PlatformScope("a test issues for every tenant")
SALE = Sale(plan_id=uuid4(), plan="Plan", billing_period=BillingPeriod.MONTHLY, period=None)


class ThoughtBetter(Exception):
    """Rolls the unit of work back."""


async def issue_one(
    units: UnitOfWorkFactory, documents: DocumentService, subscription_id: UUID, fail: Callable[[], Awaitable[None]]
) -> None:
    async with units(SCOPE) as uow:
        locked = select(Subscription).where(Subscription.id == subscription_id).with_for_update(key_share=True)
        subscription = (await uow.session.scalars(locked)).one()
        payment = PaymentEvent(
            id=uuid4(),
            tenant_id=subscription.tenant_id,
            subscription_id=subscription.id,
            event_type=PaymentEventType.PAYMENT_SUCCESS,
            amount=Decimal("9.90"),
            currency="USD",
            provider="test",
            provider_event_id=uuid4().hex,
            fact_key=uuid4().hex,
            event_metadata={},
            created_at=uow.now,
        )
        uow.session.add(payment)
        uow.audit("test.paid", actor_id=None, tenant_id=subscription.tenant_id, subject=("test", payment.id))
        documents.settle(uow, payment.id, sale=SALE)
        uow.leave_for_last(uow.session.flush)
        uow.leave_for_last(fail)


def _tenant_of(subscription_id: UUID) -> Select[UUID]:
    return select(Subscription.tenant_id).where(Subscription.id == subscription_id)


async def issue(url: str, series: str, count: int, subscription_ids: list[UUID]) -> None:
    engine = create_engine(url, pool_size=10)
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, autoflush=False)
    guard_tenants(sessions)
    ears = Ears()
    units = UnitOfWorkFactory(sessions, clock=SystemClock(), bell=ears, ringer=ears)
    documents = DocumentService(
        units=units,
        issuer=Issuer(name="Platform", address="", tax_id="", series=series, tax_rate=Decimal(0)),
        links=DocumentLinks([b"key"], public_url="http://localhost"),
        mail=MailService(units, Unsent()),
        notifications=NotificationService(),
    )

    async def fail(*, also: bool) -> None:
        # Numbers are taken by now.
        if also:
            raise ThoughtBetter

    async def speak(number: int) -> None:
        """Do what every use case does, in the same tenants."""
        async with units(SCOPE) as uow:
            tenant_id = (await uow.session.scalars(_tenant_of(subscription_ids[number % len(subscription_ids)]))).one()
            uow.audit("test.spoken", actor_id=None, tenant_id=tenant_id, subject=("test", tenant_id))
            uow.record(Said(tenant_id=tenant_id, text=str(number)))

    async def attempt(number: int) -> bool:
        await speak(number)
        try:
            failing = number % 2 == 1
            await issue_one(units, documents, random.choice(subscription_ids), lambda: fail(also=failing))
        except ThoughtBetter:
            return False
        return True

    done = await asyncio.gather(*(attempt(number) for number in range(count)))
    await engine.dispose()
    sys.stdout.write(f"{sum(done)}\n")


if __name__ == "__main__":
    asyncio.run(issue(sys.argv[1], sys.argv[2], int(sys.argv[3]), [UUID(item) for item in sys.argv[4:]]))
