"""The recipe driver: carries out the steps of a job by running the commands that a recipe names."""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

from providers.provisioning.commands import Command, CommandNotStarted, LineSink, run_command
from providers.provisioning.contract import (
    SiteTarget,
    StepFailed,
    StepPlan,
    StepReport,
    StepTimedOut,
    Stream,
    UnknownStep,
)
from providers.provisioning.output import OutputFilter, OutputLimits, RawLine, Redactor
from providers.provisioning.recipe import Job, Recipe, RecipeError, Step, missing_environment
from providers.provisioning.site_state import SiteLock, SiteState
from providers.provisioning.templates import UnfitValue, parse

_PROJECT_DIR: Final = Path(__file__).resolve().parents[2]
# After these a site is live or gone, so no job may take it back any more.
_SETTLING_KINDS: Final = frozenset({"create_site", "restore_site", "delete_site"})
# These can make a site, so the site's secrets must exist.
_MAKING_KINDS: Final = frozenset({"create_site", "restore_site"})
_MESSAGE_CHARS: Final = 500
_WAITING: Final[tuple[Stream, str]] = ("stderr", "waiting for an earlier command on this site to end")
_DEFAULT_LIMITS: Final = OutputLimits()


class _Discard:
    """A sink for a command that is only asked a question, by its exit code."""

    max_line_bytes: Final = 1

    async def take(self, stream: Stream, line: RawLine) -> None:
        """Throw the line away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One step, or one compensation, under way, with the site's lock held."""

    title: str
    values: Mapping[str, str]
    environment: Mapping[str, str]
    cwd: str
    output: OutputFilter
    state: SiteState
    lock: SiteLock
    grace_s: float

    def render(self, text: str) -> str:
        try:
            return parse(text).render(self.values)
        except UnfitValue as error:
            raise StepFailed(f"{self.title}: {error}", retryable=False) from error
        except KeyError as error:
            raise StepFailed(f"{self.title}: there is no value for {{{error.args[0]}}}", retryable=False) from error

    def path(self, text: str) -> Path:
        """Render a path; a relative one is meant from the folder the commands run in."""
        return Path(self.render(self.cwd), self.render(text))

    async def run(self, argv: Sequence[str], *, permanent_exit_codes: AbstractSet[int] = frozenset()) -> None:
        """Run a command with its output reported. Raises StepFailed unless it exits with 0."""
        code = await self._execute(argv, self.output)
        await self.output.close()
        if code != 0:
            how = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
            words = f": {self.output.last_words}" if self.output.last_words else ""
            message = f"{self.title}: {how}{words}"[:_MESSAGE_CHARS]
            raise StepFailed(message, retryable=code not in permanent_exit_codes, exit_code=code)

    async def succeeds(self, argv: Sequence[str]) -> bool:
        """Ask a command a question: tell whether it exits with 0. Its output is not reported."""
        return await self._execute(argv, _Discard()) == 0

    async def _execute(self, argv: Sequence[str], sink: LineSink) -> int:
        rendered = [self.render(text) for text in argv]
        program = shutil.which(rendered[0], path=self.environment.get("PATH", ""))
        if program is None:
            raise StepFailed(f"{self.title}: the command {rendered[0]!r} was not found", retryable=False, exit_code=127)
        command = Command(argv=(program, *rendered[1:]), environment=self.environment, cwd=Path(self.render(self.cwd)))
        try:
            return await run_command(
                command,
                sink,
                grace_s=self.grace_s,
                inherited_fds=(self.lock.fd,),
                on_start=self.lock.record_group,
            )
        except CommandNotStarted as error:
            raise StepFailed(f"{self.title}: {error}", retryable=False, exit_code=126) from error


class RecipeDriver:
    """A ProvisioningDriver (see contract) that runs a recipe's commands.

    `data_dir` holds the sites of the default recipe and the driver's own state. `environment` is where the
    recipe's variables are taken from; commands see only those the recipe lists. A process group that must end
    gets SIGTERM and, after `kill_grace_s` seconds, SIGKILL. Raises RecipeError when the environment lacks
    what the recipe needs.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        data_dir: Path,
        environment: Mapping[str, str],
        limits: OutputLimits = _DEFAULT_LIMITS,
        kill_grace_s: float = 10.0,
    ) -> None:
        if missing := missing_environment(recipe, environment):
            raise RecipeError(f"recipe {recipe.name!r} needs the environment variables {', '.join(missing)}")
        self._recipe = recipe
        self._data_dir = data_dir.resolve()
        self._limits = limits
        self._grace_s = kill_grace_s
        self._environment = {
            name: entry.value if entry.value is not None else environment.get(name, entry.default or "")
            for name, entry in recipe.environment.items()
        }

    def plan(self, kind: str) -> tuple[StepPlan, ...]:
        return tuple(step.plan() for step in self._job(kind).steps)

    async def run_step(
        self,
        kind: str,
        step_name: str,
        target: SiteTarget,
        *,
        job_id: UUID,
        attempt: int,
        outputs: Mapping[str, str],
        report: StepReport,
    ) -> Mapping[str, str]:
        job, step = self._job(kind), self._step(kind, step_name)
        async with self._working(
            kind,
            target,
            title=step.title,
            timeout_s=step.timeout_s,
            prints=step.prints,
            makes_secrets=kind in _MAKING_KINDS,
            job_id=job_id,
            outputs=outputs,
            report=report,
        ) as work:
            leftover = _claim(job, step, work, job_id=job_id)
            if step.only_if_exists is not None and not work.path(step.only_if_exists).exists():
                await work.output.say("stdout", "nothing to do: it does not exist")
                produced: Mapping[str, str] = {}
            else:
                starts_over = (leftover or attempt > 1) and work.state.is_claimed_by(job_id)
                await _carry_out(step, work, starts_over=starts_over)
                produced = _outputs_of(step, work)
            if step is job.steps[-1]:
                _settle(kind, work.state)
        return produced

    async def compensate(
        self,
        kind: str,
        step_name: str,
        target: SiteTarget,
        *,
        job_id: UUID,
        outputs: Mapping[str, str],
        report: StepReport,
    ) -> None:
        job, step = self._job(kind), self._step(kind, step_name)
        undo = step.compensate
        if undo is None:
            return
        async with self._working(
            kind,
            target,
            title=f"Undo: {step.title}",
            timeout_s=undo.timeout_s,
            job_id=job_id,
            outputs=outputs,
            report=report,
        ) as work:
            if job.claims is not None and not work.state.is_claimed_by(job_id):
                await work.output.say("stdout", "nothing to undo: this job did not make the site")
                return
            if undo.only_if_exists is None or work.path(undo.only_if_exists).exists():
                await work.run(undo.argv, permanent_exit_codes=step.permanent_exit_codes)
            if job.claims is not None and step is job.first_compensating_step:
                work.state.forget_secrets()
                work.state.settle()

    def _job(self, kind: str) -> Job:
        for name, job in self._recipe.jobs.items():
            if name == kind:
                return job
        raise UnknownStep(f"recipe {self._recipe.name!r} has no job {kind!r}")

    def _step(self, kind: str, step_name: str) -> Step:
        for step in self._job(kind).steps:
            if step.name == step_name:
                return step
        raise UnknownStep(f"recipe {self._recipe.name!r} has no step {step_name!r} in {kind!r}")

    def _values(self, target: SiteTarget, state: SiteState, *, job_id: UUID) -> dict[str, str]:
        return {
            "admin_email": target.admin_email or "",
            "data_dir": str(self._data_dir),
            "job_id": str(job_id),
            "limits": json.dumps(dict(target.limits), sort_keys=True, separators=(",", ":")),
            "plan": target.plan,
            "project_dir": str(_PROJECT_DIR),
            "python": sys.executable,
            "site_name": target.site_name,
            "site_url": target.site_url,
            "slug": target.slug,
            "tenant_id": str(target.tenant_id),
            **{f"env.{name}": value for name, value in self._environment.items()},
            **{f"secret.{name}": value for name, value in state.secrets(self._recipe.secrets).items()},
            **{f"secret_file.{name}": str(state.secret_path(name)) for name in self._recipe.secrets},
        }

    @asynccontextmanager
    async def _working(
        self,
        kind: str,
        target: SiteTarget,
        *,
        title: str,
        timeout_s: float,
        job_id: UUID,
        outputs: Mapping[str, str],
        report: StepReport,
        prints: Sequence[str] = (),
        makes_secrets: bool = False,
    ) -> AsyncIterator[_Work]:
        """Hold the site's lock, for at most `timeout_s` seconds in all. Raises StepTimedOut."""
        recipe = self._recipe
        state = SiteState(self._data_dir, target.site_name)
        timer = asyncio.timeout(timeout_s)
        output: OutputFilter | None = None
        try:
            async with timer, state.locked(grace_s=self._grace_s, on_wait=partial(report.line, *_WAITING)) as lock:
                if makes_secrets:
                    state.make_secrets(recipe.secrets)
                values = self._values(target, state, job_id=job_id)
                values |= _journal_values(self._job(kind), outputs)
                redactor = Redactor(values[name] for name in recipe.hidden_variables if name in values)
                output = OutputFilter(report, redactor=redactor, limits=self._limits, prints=prints)
                yield _Work(
                    title=title,
                    values=values,
                    environment={
                        name: self._environment[name] for name, entry in recipe.environment.items() if entry.export
                    },
                    cwd=recipe.cwd,
                    output=output,
                    state=state,
                    lock=lock,
                    grace_s=self._grace_s,
                )
        except TimeoutError as error:
            # The report can run into a timeout of its own, which is not the step's.
            if not timer.expired():
                raise
            if output is not None:
                await output.close()
            raise StepTimedOut(f"{title}: not finished within {timeout_s:g} s") from error


def _claim(job: Job, step: Step, work: _Work, *, job_id: UUID) -> bool:
    """Claim the site at the job's first step; tell whether a half-made site of an earlier attempt is in the way."""
    if job.claims is None or step is not job.steps[0]:
        return False
    made = work.path(job.claims)
    work.state.claim(job_id, made=made)
    return made.exists()


async def _carry_out(step: Step, work: _Work, *, starts_over: bool) -> None:
    if starts_over and step.retry_argv is not None:
        await work.run(step.retry_argv, permanent_exit_codes=step.permanent_exit_codes)
    elif step.unless is not None and await work.succeeds(step.unless):
        await work.output.say("stdout", "nothing to do: it is done already")
    else:
        await work.run(step.argv, permanent_exit_codes=step.permanent_exit_codes)


def _outputs_of(step: Step, work: _Work) -> Mapping[str, str]:
    printed = work.output.outputs
    if missing := [name for name in step.prints if name not in printed]:
        raise StepFailed(f"{step.title}: the command did not state {', '.join(missing)}", retryable=False, exit_code=0)
    stating = replace(work, values={**work.values, **{f"output.{name}": text for name, text in printed.items()}})
    return {**printed, **{name: stating.render(text) for name, text in step.sets.items()}}


def _journal_values(job: Job, outputs: Mapping[str, str]) -> dict[str, str]:
    """Return what the journal brings: outputs of earlier steps, and the inputs the job was ordered with."""
    values = {f"output.{name}": value for name, value in outputs.items()}
    for name, rule in job.inputs.items():
        value = outputs.get(name, rule.default)
        if not re.fullmatch(rule.pattern, value):
            raise StepFailed(f"The input {name!r} does not have the form that is expected", retryable=False)
        values[f"input.{name}"] = value
    return values


def _settle(kind: str, state: SiteState) -> None:
    if kind in _SETTLING_KINDS:
        state.settle()
    if kind == "delete_site":
        state.forget_secrets()
