"""The runner: the jobs that this process works on."""

import asyncio
from uuid import UUID

from providers.provisioning.contract import ProvisioningDriver
from services.provisioning.claims import Claims
from services.provisioning.execution import Execution
from services.provisioning.journal import Journal
from services.provisioning.outcomes import Outcomes
from services.provisioning.timing import Timing
from services.unit_of_work import UnitOfWorkFactory


class JobRunner:
    """Runs jobs, each at most once at a time here and, by its claim, anywhere."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        driver: ProvisioningDriver,
        *,
        claims: Claims,
        outcomes: Outcomes,
        timing: Timing,
    ) -> None:
        self._units = units
        self._driver = driver
        self._claims = claims
        self._outcomes = outcomes
        self._timing = timing
        self._executions: dict[UUID, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[UUID] = set()
        self._stopping = False

    async def run(self, job_id: UUID) -> None:
        """Run the job if it is its turn, and return when it has ended or is another's.

        For a job that runs here already this is only a hint to look at its row. Raises what the database raises; the
        job is then taken up again when its lease has run out.
        """
        running = self._executions.get(job_id)
        if running is not None:
            running.look()
            return
        if self._stopping:
            return
        task = asyncio.create_task(self._claim_and_run(job_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # Whoever cancels us must not leave a command behind that nobody owns.
            self._ending.add(job_id)
            await self._end({job_id}, {task})
            self._ending.discard(job_id)
            raise

    async def stop(self) -> None:
        """Take up no further job, end the steps under way and hand their jobs back; returns when that is done."""
        self._stopping = True
        await self._end(set(self._executions), set(self._tasks))

    async def _end(self, job_ids: set[UUID], tasks: set[asyncio.Task[None]]) -> None:
        for job_id in job_ids & self._executions.keys():
            self._executions[job_id].stop()
        if tasks:
            await asyncio.wait(tasks)

    async def _claim_and_run(self, job_id: UUID) -> None:
        claim = await self._claims.take(job_id)
        if claim is None:
            return
        journal = Journal(self._units, self._outcomes, claim, timing=self._timing)
        execution = Execution(claim, journal, self._driver, timing=self._timing)
        self._executions[job_id] = execution
        if self._stopping or job_id in self._ending:
            execution.stop()
        try:
            await execution.run()
        finally:
            del self._executions[job_id]
