"""Counting calls: in memory, told to the database every few seconds, and one by one when a limit is near.

Each instance counts for itself and every few seconds adds what it has counted to the month's row, which tells it what
all instances have counted. While a tenant is far from its limit that is all; of a crash nothing is lost but the calls
of these seconds, in the tenant's favour. Once few calls are left each is counted in the database before it is served,
by a statement that cannot go beyond the limit, however many instances ask at once.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from core.clock import Clock
from core.errors import Unavailable
from models.entitlements import UNLIMITED, Limit
from models.tenants import Tenant
from models.usage import ApiUsage
from services.entitlements.desk import EntitlementDesk
from services.entitlements.errors import PlanLimitReached
from services.entitlements.usage import calls, month_of
from services.unit_of_work import PlatformScope, TenantScope, UnitOfWork, UnitOfWorkFactory

# From how many calls before the limit each is counted by itself; how often the others are told, in seconds.
_NEAR: Final = 500
_FLUSH_S: Final = 5.0
# For how long it is believed how much a tenant may. An upgrade is seen at once all the same, for nobody is refused
# without another look.
_FRESH: Final = timedelta(seconds=30)
_SCOPE = PlatformScope("the calls of all tenants are told together")

Month = tuple[UUID, date]

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Account:
    """What is known of one tenant's month: how much it may, and how much all instances had told when it was read."""

    month: date
    allowed: int
    told: int
    read_at: datetime


class CallMeter:
    """Counts the calls that come to one instance."""

    def __init__(self, units: UnitOfWorkFactory, desk: EntitlementDesk, *, clock: Clock) -> None:
        self._units = units
        self._desk = desk
        self._clock = clock
        self._accounts: dict[UUID, _Account] = {}
        self._counted: Counter[Month] = Counter()
        self._lines: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def count(self, tenant_id: UUID) -> None:
        """Count one call of a tenant; raises PlanLimitReached when it may make no more this month."""
        if self._count_here(tenant_id):
            return
        line = self._lines.setdefault(tenant_id, asyncio.Lock())
        async with line:
            # Whoever stood in front may have looked already.
            if self._known(tenant_id) is None:
                await self._read(tenant_id)
            if not self._count_here(tenant_id):
                await self._count_there(tenant_id)

    async def run(self) -> None:
        """Tell the database now and then what was counted, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_S)
            try:
                await self.flush()
            except Unavailable:
                logger.warning("calls not told: the database is away")

    async def flush(self) -> None:
        """Add what was counted here to the months' rows; what cannot be told now is told the next time."""
        now = self._clock.now()
        self._accounts = {
            tenant_id: account for tenant_id, account in self._accounts.items() if now - account.read_at <= _FRESH
        }
        taken, self._counted = self._counted, Counter()
        for (tenant_id, month), count in taken.items():
            if (account := self._accounts.get(tenant_id)) is not None and account.month == month:
                account.told += count
        try:
            async with self._units(_SCOPE) as uow:
                totals = await _tell(uow, taken)
        except BaseException:
            self._counted.update(taken)
            raise
        for (tenant_id, month), total in totals.items():
            if (account := self._accounts.get(tenant_id)) is not None and account.month == month:
                account.told = total

    def _count_here(self, tenant_id: UUID) -> bool:
        """Count a call in memory; returns False when the limit is near, or not known."""
        account = self._known(tenant_id)
        if account is None:
            return False
        month = (tenant_id, account.month)
        if account.allowed != UNLIMITED and account.allowed - account.told - self._counted[month] <= _NEAR:
            return False
        self._counted[month] += 1
        return True

    async def _count_there(self, tenant_id: UUID) -> None:
        month = (tenant_id, month_of(self._clock.now()))
        waiting = self._counted.pop(month, 0)
        try:
            async with self._units(TenantScope(tenant_id)) as uow:
                await _tell(uow, {month: waiting} if waiting else {})
                allowed = (await self._desk.of(uow, tenant_id)).allowed(Limit.API_CALLS)
                told = await _take_one(uow, month, allowed)
                used = await calls(uow, tenant_id)
        except BaseException:
            self._counted[month] += waiting
            raise
        self._accounts[tenant_id] = _Account(month[1], allowed, used, self._clock.now())
        # Raised only now: leaving the unit of work by an exception would undo what was told.
        if not told:
            raise PlanLimitReached(Limit.API_CALLS, used=used, allowed=allowed)

    async def _read(self, tenant_id: UUID) -> None:
        async with self._units(TenantScope(tenant_id)) as uow:
            allowed = (await self._desk.of(uow, tenant_id)).allowed(Limit.API_CALLS)
            told = await calls(uow, tenant_id)
            self._accounts[tenant_id] = _Account(month_of(uow.now), allowed, told, uow.now)

    def _known(self, tenant_id: UUID) -> _Account | None:
        """Return what is known of a tenant, unless it is of another month or too old."""
        account, now = self._accounts.get(tenant_id), self._clock.now()
        if account is None or account.month != month_of(now) or now - account.read_at > _FRESH:
            return None
        return account


async def _tell(uow: UnitOfWork, counted: Mapping[Month, int]) -> dict[Month, int]:
    """Add counts to their months' rows; returns the new totals."""
    if not counted:
        return {}
    # Whoever has been deleted meanwhile is not counted any more, and must not keep the others from it.
    asked = {tenant_id for tenant_id, _ in counted}
    alive = set(
        await uow.session.scalars(
            select(Tenant.id).where(Tenant.id.in_(asked)).order_by(Tenant.id).with_for_update(read=True, key_share=True)
        )
    )
    rows = [
        {"id": uuid4(), "tenant_id": tenant_id, "month": month, "calls": count}
        # One order for all instances, so that two of them cannot lock each other out for good.
        for (tenant_id, month), count in sorted(counted.items())
        if tenant_id in alive
    ]
    if not rows:
        return {}
    statement = insert(ApiUsage).values(rows)
    told = await uow.session.execute(
        statement.on_conflict_do_update(
            index_elements=[ApiUsage.tenant_id, ApiUsage.month],
            set_={"calls": ApiUsage.calls + statement.excluded.calls},
        ).returning(ApiUsage.tenant_id, ApiUsage.month, ApiUsage.calls)
    )
    return {(row.tenant_id, row.month): row.calls for row in told}


async def _take_one(uow: UnitOfWork, month: Month, allowed: int) -> bool:
    """Count one call, unless that would be more than is allowed; returns whether it was counted."""
    if allowed == 0:
        return False
    within = None if allowed == UNLIMITED else ApiUsage.calls < allowed
    taken = await uow.session.scalar(
        insert(ApiUsage)
        .values(id=uuid4(), tenant_id=month[0], month=month[1], calls=1)
        .on_conflict_do_update(
            index_elements=[ApiUsage.tenant_id, ApiUsage.month], set_={"calls": ApiUsage.calls + 1}, where=within
        )
        .returning(ApiUsage.calls)
    )
    return taken is not None
