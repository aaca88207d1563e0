"""What an event has really changed: told of those that nobody told us and we found ourselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from sqlalchemy import event, inspect, update
from sqlalchemy.orm import Session

from models.base import TenantOwned
from models.inbox import EventSource, ProviderEvent
from models.reconciliations import Reconciliation
from services.unit_of_work import UnitOfWork

# Up to when we are informed and by whom, and to the second when something was: no difference to anybody.
_BOOKKEEPING: Final = frozenset(
    {
        "cancel_facts_until",
        "completed_at",
        "created_at",
        "dunned",
        "entitlements_told_at",
        "facts_until",
        "failed_until",
        "next_poll_at",
        "period_facts_until",
        "polls",
        "provider_event_id",
        "refunds_until",
        "updated_at",
    }
)


@dataclass(slots=True)
class Changes:
    """The tables in which something of a tenant's was made, changed or dropped, and whose it was."""

    tables: set[str] = field(default_factory=set)
    tenant_id: UUID | None = None

    def look(self, session: Session, *_: object) -> None:
        """Take in what is about to be written."""
        for row in (*session.new, *session.deleted, *filter(_is_changed, session.dirty)):
            if isinstance(row, TenantOwned):
                self.tables.add(inspect(row).mapper.local_table.name)
                self.tenant_id = row.tenant_id


@contextmanager
def watching(uow: UnitOfWork) -> Iterator[Changes]:
    """Watch what is written within the block."""
    changes, session = Changes(), uow.session.sync_session
    event.listen(session, "before_flush", changes.look)
    try:
        yield changes
    finally:
        event.remove(session, "before_flush", changes.look)


async def note_reconciled(uow: UnitOfWork, row: ProviderEvent, changes: Changes) -> None:
    """Audit that an event which nobody had told us made a difference, and count it for the sweep that found it."""
    told = {"event_id": row.event_id, "type": row.type}
    is_news = audit_reconciled(
        uow, changes, ("provider_event", row.id), provider=row.provider, source=row.source, details=told
    )
    if is_news and row.reconciliation_id is not None:
        await uow.session.execute(
            update(Reconciliation)
            .where(Reconciliation.id == row.reconciliation_id)
            .values(changed=Reconciliation.changed + 1)
        )


def audit_reconciled(
    uow: UnitOfWork,
    changes: Changes,
    subject: tuple[str, UUID],
    *,
    provider: str,
    source: EventSource,
    details: Mapping[str, str] | None = None,
) -> bool:
    """Audit that what we asked a provider for made a difference; returns whether it did."""
    if not changes.tables:
        return False
    uow.audit(
        "payment.reconciled",
        actor_id=None,
        tenant_id=changes.tenant_id,
        subject=subject,
        details={
            "provider": provider,
            "source": source.value,
            **(details or {}),
            "changed": sorted(changes.tables),
        },
    )
    return True


def _is_changed(row: object) -> bool:
    state = inspect(row)
    return any(
        state.attrs[column.key].history.has_changes()
        for column in state.mapper.column_attrs
        if column.key not in _BOOKKEEPING
    )
