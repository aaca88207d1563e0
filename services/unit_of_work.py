"""The unit of work: one use case, one transaction, its facts and their events together.

Leaving the block cleanly commits; leaving it in any other way rolls everything back, recorded events included.
No network call belongs inside an open unit of work.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID, uuid4

from sqlalchemy import Connection, event, insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, with_loader_criteria

from core.clock import Clock
from core.errors import DomainError, ErrorKind, Unavailable
from core.redaction import redacted
from models.audit import AuditEntry
from models.base import Base, TenantOwned
from models.isolation import enter
from realtime import log
from realtime.exchange import Bell, EphemeralEvent
from realtime.log import PendingEvent
from services.events import DomainEvent, EphemeralFact
from services.outage import is_outage

_SCOPE = "scope"
_AUDIT_ENTRIES = Base.metadata.tables[AuditEntry.__tablename__]
# When to come back while the database is away, in seconds.
_RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class TenantScope:
    """Only this tenant's rows exist in the unit of work."""

    tenant_id: UUID


@dataclass(frozen=True, slots=True)
class PlatformScope:
    """Every tenant's rows exist: for sign-in, webhooks, workers and operators. `reason` says why, for the reader."""

    reason: str


Scope = TenantScope | PlatformScope


class TenantScopeMissing(RuntimeError):
    """A tenant's rows were asked for on a session that no unit of work has opened: a bug, never a user's fault."""


class ForeignTenant(DomainError):
    """A row of another tenant was about to be written."""

    kind = ErrorKind.FORBIDDEN
    code = "PERMISSION_DENIED"
    message = "You don't have access to this tenant"


@dataclass(frozen=True, slots=True)
class Task:
    """A doorbell for the worker: `name` of the task and the id of the row that holds the truth."""

    name: str
    row_id: UUID


class TaskRinger(Protocol):
    """Rings the worker after a commit; it never waits and never fails, for the sweepers repair a lost ring."""

    def ring(self, task: Task) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTrace:
    """Where a use case came from, for its audit entries: through which door, and who said to be there.

    `impersonator_id` is who really acts, when it is in the name of somebody else; `by_key` tells that the actor is no
    user but an API key.
    """

    source: Literal["rest", "socket", "cli", "system"] = "system"
    request_id: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    impersonator_id: UUID | None = None
    by_key: bool = False


class UnitOfWork:
    """What a service is given: the session, the time, and somewhere to record facts."""

    def __init__(self, session: AsyncSession, scope: Scope, *, now: datetime, trace: RequestTrace) -> None:
        self.session = session
        self.scope = scope
        self.now = now
        self._trace = trace
        self._audits: list[dict[str, Any]] = []
        self._events: list[PendingEvent] = []
        self._whispers: list[EphemeralEvent] = []
        self._tasks: list[Task] = []
        self._last_steps: list[Callable[[], Awaitable[None]]] = []

    def record(self, fact: DomainEvent) -> None:
        """Record a fact for the log; it is numbered when the unit of work commits and vanishes if it does not."""
        event_id = uuid4()
        self._events.append(
            PendingEvent(
                id=event_id,
                tenant_id=fact.tenant_id,
                namespace=fact.namespace,
                room=fact.room(),
                name=fact.event,
                payload=fact.payload(),
                created_at=self.now,
            )
        )

    def whisper(self, fact: EphemeralFact) -> None:
        """Tell whoever is listening when the unit of work has committed; nothing of it is kept."""
        self._whispers.append(fact.told())

    def audit(
        self,
        action: str,
        *,
        actor_id: UUID | None,
        tenant_id: UUID | None,
        subject: tuple[str, UUID | str],
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Write who did what: `action` is `subject.verb`, `subject` a (type, id) pair; no actor means the system.

        Of `details` whatever bears the name of a secret is left out.
        """
        told = dict(details or {})
        if self._trace.impersonator_id is not None:
            told["impersonator_id"] = str(self._trace.impersonator_id)
        if self._trace.by_key:
            told["actor"] = "api_key"
        self._audits.append(
            {
                "tenant_id": tenant_id,
                "actor_id": actor_id,
                "source": self._trace.source,
                "action": action,
                "subject_type": subject[0],
                "subject_id": str(subject[1]),
                "details": redacted(told),
                "request_id": self._trace.request_id,
                "ip": self._trace.ip,
                "user_agent": self._trace.user_agent,
                "created_at": self.now,
            }
        )

    def ring(self, name: str, row_id: UUID) -> None:
        """Ring the worker for a row once it is committed."""
        self._tasks.append(Task(name, row_id))

    def leave_for_last(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step once the use case is over: for what holds a lock that every tenant wants.

        It may change rows, audit, record and ring like any other; it vanishes if the unit of work does not commit.
        """
        self._last_steps.append(step)

    async def take_last_steps(self) -> None:
        """Take what was left for last, in its order."""
        while self._last_steps:
            await self._last_steps.pop(0)()

    async def write_audits(self) -> None:
        """Write the audit entries: after all other rows, for it locks their chains, always in the same order."""
        if self._audits:
            ordered = sorted(self._audits, key=lambda entry: str(entry["tenant_id"] or entry["actor_id"] or ""))
            await self.session.execute(insert(_AUDIT_ENTRIES), ordered)

    @property
    def pending_events(self) -> Sequence[PendingEvent]:
        return self._events

    @property
    def pending_whispers(self) -> Sequence[EphemeralEvent]:
        return self._whispers

    @property
    def pending_tasks(self) -> Sequence[Task]:
        return self._tasks


class UnitOfWorkFactory:
    """Opens units of work; the doors hold one and call it."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], *, clock: Clock, bell: Bell, ringer: TaskRinger
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._bell = bell
        self._ringer = ringer

    @asynccontextmanager
    async def __call__(self, scope: Scope, *, trace: RequestTrace | None = None) -> AsyncIterator[UnitOfWork]:
        try:
            async with self._sessions(info={_SCOPE: scope}) as session:
                uow = UnitOfWork(session, scope, now=self._clock.now(), trace=trace or RequestTrace())
                yield uow
                await uow.take_last_steps()
                # The rows go first and the numbering last, so that a stream is locked for as short as can be.
                await session.flush()
                await uow.write_audits()
                numbered = await log.append(session, uow.pending_events)
                await session.commit()
        except Exception as error:
            if is_outage(error):
                raise Unavailable(retry_after_s=_RETRY_AFTER_S) from error
            raise
        self._bell.ring(numbered)
        for whisper in uow.pending_whispers:
            self._bell.whisper(whisper)
        for task in uow.pending_tasks:
            self._ringer.ring(task)


def guard_tenants(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Make every session of `sessions` see and write only what its unit of work's scope allows."""
    sync_class: type[Session] = type("ScopedSession", (Session,), {})
    sessions.configure(sync_session_class=sync_class)
    event.listen(sync_class, "do_orm_execute", _limit_to_tenant)
    event.listen(sync_class, "before_flush", _refuse_foreign_rows)
    event.listen(sync_class, "after_begin", bind_transaction)


def _scope_of(session: Session) -> Scope:
    scope: Scope | None = session.info.get(_SCOPE)
    if scope is None:
        raise TenantScopeMissing("open a unit of work: this session has no scope")
    return scope


def bind_transaction(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    """Raise the second wall: what the criterion does not reach, PostgreSQL hides (models/isolation.py)."""
    if not transaction.nested:
        scope = _scope_of(session)
        enter(connection, scope.tenant_id if isinstance(scope, TenantScope) else None)


def _limit_to_tenant(state: ORMExecuteState) -> None:
    scope = _scope_of(state.session)
    if isinstance(scope, PlatformScope) or state.is_column_load or state.is_relationship_load:
        return
    if state.is_select or state.is_update or state.is_delete:
        tenant_id = scope.tenant_id
        state.statement = state.statement.options(
            with_loader_criteria(
                TenantOwned,
                lambda owned: owned.tenant_id == tenant_id,
                include_aliases=True,
                track_closure_variables=True,
            )
        )


def _refuse_foreign_rows(session: Session, *_: object) -> None:
    scope = _scope_of(session)
    if isinstance(scope, PlatformScope):
        return
    for row in (*session.new, *session.dirty, *session.deleted):
        if isinstance(row, TenantOwned) and row.tenant_id != scope.tenant_id:
            raise ForeignTenant
