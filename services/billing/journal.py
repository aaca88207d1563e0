"""Posting to the journal (models/journal.py). Callers hold the subscription's lock, so reading first is safe."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid4

from sqlalchemy import select

from core.money import round_money
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
