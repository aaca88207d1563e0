"""The sweep: rings for jobs whose doorbell or worker was lost."""

from sqlalchemy import and_, case, func, or_, select

from models.provisioning import UNFINISHED, JobState, ProvisioningJob
from services.provisioning.outcomes import RUN_TASK
from services.provisioning.timing import Timing
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

_BATCH = 500


class Sweep:
    """Finds the jobs that could go on but do not; safe to run anywhere, at once."""

    def __init__(self, units: UnitOfWorkFactory, *, timing: Timing) -> None:
        self._units = units
        self._timing = timing

    async def run(self) -> int:
        """Ring for every job that is first in its tenant's line and due; return how many were rung for.

        A row is not rung for again within `Timing.rering`, or a queue behind busy workers would fill with doorbells.
        """
        async with self._units(PlatformScope("a sweep serves every tenant")) as uow:
            return await self._ring_due(uow)

    async def _ring_due(self, uow: UnitOfWork) -> int:
        job = ProvisioningJob
        place = func.row_number().over(
            partition_by=job.tenant_id,
            # The order of models.provisioning.line_place.
            order_by=(
                case((job.state == JobState.RUNNING, 0), (job.state == JobState.RETRYING, 1), else_=2),
                job.created_at,
                job.id,
            ),
        )
        line = select(job.id, place.label("place")).where(job.state.in_(UNFINISHED)).subquery()
        since = func.coalesce(job.lease_until, job.next_run_at)
        due = or_(
            and_(job.state == JobState.RUNNING, job.lease_until <= uow.now),
            and_(job.state.in_((JobState.QUEUED, JobState.RETRYING)), job.next_run_at <= uow.now),
        )
        unheard = or_(job.rung_at.is_(None), job.rung_at < since, job.rung_at <= uow.now - self._timing.rering)
        statement = (
            select(job)
            .where(job.id.in_(select(line.c.id).where(line.c.place == 1)), due, unheard)
            .order_by(job.next_run_at)
            .limit(_BATCH)
            .with_for_update(key_share=True, skip_locked=True)
        )
        rows = (await uow.session.scalars(statement)).all()
        for row in rows:
            row.rung_at = uow.now
            uow.ring(RUN_TASK, row.id)
        return len(rows)
