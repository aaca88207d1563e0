"""Posting to the journal (models/journal.py), and what its entries were for.

Who posts holds the subscription's lock, so reading first is safe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid4

from sqlalchemy import ScalarSelect, String, and_, case, cast, func, select, update
from sqlalchemy.orm import aliased

from core.money import round_money
from models.billing import Credit, CreditReason, PaymentEvent, PaymentEventType
from models.journal import SIDES, Account, EntryKind, JournalEntry, difference
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyFact:
    """What moved: `key` names the fact within its provider and kind; `occurred_at` is the provider's time."""

    tenant_id: UUID
    provider: str
    kind: EntryKind
    key: str
    currency: str
    occurred_at: datetime


async def post(uow: UnitOfWork, fact: MoneyFact, target: Decimal, *, may_fall: bool = False) -> None:
    """Bring what is posted of a fact to `target`; posting the same again does nothing.

    With `may_fall` less than what is posted is posted back; without it a smaller amount is old news.
    """
    rows = await _entries(uow, provider=fact.provider, kind=fact.kind, key=fact.key)
    before = _sum(rows)
    step = difference(fact.kind, posted=before, target=round_money(target, fact.currency))
    if step is None or (before > target and not may_fall):
        return
    debit, credit, amount = step
    uow.session.add(
        JournalEntry(
            id=uuid4(),
            tenant_id=fact.tenant_id,
            provider=fact.provider,
            kind=fact.kind,
            fact_key=fact.key,
            number=len(rows) + 1,
            debit=debit,
            credit=credit,
            amount=amount,
            currency=fact.currency,
            occurred_at=fact.occurred_at,
        )
    )
    # The next fact of the same unit of work reads what is posted.
    await uow.session.flush()


async def posted(uow: UnitOfWork, *, provider: str, kind: EntryKind, key: str) -> Decimal:
    """Return what is posted of a fact."""
    return _sum(await _entries(uow, provider=provider, kind=kind, key=key))


async def balances(uow: UnitOfWork, tenant_id: UUID) -> dict[tuple[Account, str], Decimal]:
    """Return what each account of a tenant holds, by currency: debits less credits. All together are zero."""
    found: dict[tuple[Account, str], Decimal] = {}
    for row in await uow.session.scalars(select(JournalEntry).where(JournalEntry.tenant_id == tenant_id)):
        for account, amount in ((row.debit, row.amount), (row.credit, -row.amount)):
            key = (account, row.currency)
            found[key] = found.get(key, Decimal(0)) + amount
    return found


async def close(uow: UnitOfWork, tenant_id: UUID) -> None:
    """Note in a tenant's entries what they were for: the payments that tell it go with the tenant, the entries stay."""
    own = JournalEntry.tenant_id == tenant_id
    await uow.session.execute(update(JournalEntry).where(own).values(plan_id=plan_of_entry()))


def plan_of_entry() -> ScalarSelect[UUID | None]:
    """Select the plan that an entry's payment was for; a refund, a dispute and a credit are of the plan charged for."""
    payment = aliased(PaymentEvent)
    of_entry = select(payment.plan_id).where(
        payment.id == func.coalesce(_payment(), _disputed_payment(), _unearned_payment())
    )
    return of_entry.correlate(JournalEntry).scalar_subquery()


def _payment() -> ScalarSelect[UUID]:
    payment = aliased(PaymentEvent)
    of_entry = select(payment.id).where(
        JournalEntry.kind.in_((EntryKind.CHARGE, EntryKind.REFUND)),
        payment.provider == JournalEntry.provider,
        payment.event_type == PaymentEventType.PAYMENT_SUCCESS,
        payment.fact_key == JournalEntry.fact_key,
    )
    return of_entry.correlate(JournalEntry).scalar_subquery()


def _disputed_payment() -> ScalarSelect[UUID | None]:
    dispute = aliased(PaymentEvent)
    of_entry = select(dispute.payment_id).where(
        JournalEntry.kind.in_((EntryKind.DISPUTE, EntryKind.DISPUTE_WON)),
        dispute.provider == JournalEntry.provider,
        dispute.event_type == PaymentEventType.CHARGEBACK,
        dispute.fact_key == JournalEntry.fact_key,
    )
    return of_entry.correlate(JournalEntry).scalar_subquery()


def _unearned_payment() -> ScalarSelect[UUID]:
    """Select the payment of a change that came to nothing, also for what was given back of it."""
    payment, credit = aliased(PaymentEvent), aliased(Credit)
    of_entry = (
        select(payment.id)
        .join(credit, and_(credit.checkout_id == payment.checkout_id, credit.reason == CreditReason.SUPERSEDED))
        .where(
            payment.event_type == PaymentEventType.PAYMENT_SUCCESS,
            case(
                (JournalEntry.kind == EntryKind.UNEARNED, credit.payment_key),
                (JournalEntry.kind == EntryKind.CREDIT_SETTLED, cast(credit.id, String)),
            )
            == JournalEntry.fact_key,
        )
    )
    return of_entry.correlate(JournalEntry).scalar_subquery()


async def _entries(uow: UnitOfWork, *, provider: str, kind: EntryKind, key: str) -> list[JournalEntry]:
    return list(
        await uow.session.scalars(
            select(JournalEntry).where(
                JournalEntry.provider == provider, JournalEntry.kind == kind, JournalEntry.fact_key == key
            )
        )
    )


def _sum(entries: Sequence[JournalEntry]) -> Decimal:
    return sum((row.amount if row.debit is SIDES[row.kind][0] else -row.amount for row in entries), Decimal(0))
