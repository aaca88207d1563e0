"""What the provisioning tests share: a report that remembers, recipes on the spot, and a job run step by step."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import yaml

from providers.provisioning.contract import NO_OUTPUTS, ProvisioningDriver, SiteTarget, Stream
from providers.provisioning.driver import RecipeDriver
from providers.provisioning.output import OutputLimits
from providers.provisioning.recipe import load_recipe

PROJECT_DIR = Path(__file__).resolve().parents[3]
RECIPES = PROJECT_DIR / "deploy" / "recipes"


@dataclass
class Report:
    """Remembers everything it is told."""

    lines: list[tuple[Stream, str]] = field(default_factory=list)
    fractions: list[float] = field(default_factory=list)

    async def line(self, stream: Stream, text: str) -> None:
        self.lines.append((stream, text))

    async def progress(self, fraction: float) -> None:
        self.fractions.append(fraction)

    @property
    def text(self) -> str:
        return "\n".join(text for _, text in self.lines)


def make_target(**changes: object) -> SiteTarget:
    """Return a target nobody else uses."""
    slug = f"t{uuid4().hex[:10]}"
    fields: dict[str, object] = {
        "tenant_id": uuid4(),
        "slug": slug,
        "site_name": f"{slug}.example.test",
        "site_url": f"https://{slug}.example.test",
        "plan": "starter",
        "limits": {"users": 5, "storage_gb": 10, "api": True, "seats": None},
        "admin_email": "owner@example.test",
        **changes,
    }
    return SiteTarget(**fields)  # type: ignore[arg-type]


def driver_for(
    jobs: Mapping[str, object],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    limits: OutputLimits | None = None,
    kill_grace_s: float = 2.0,
    **head: object,
) -> RecipeDriver:
    """Write a recipe into `folder`, load it and return a driver for it."""
    listed: dict[str, object] = {"PATH": {}}
    given = head.pop("environment_entries", {})
    assert isinstance(given, dict)
    content = {"version": 1, "name": "test", "environment": listed | given, "jobs": jobs, **head}
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(content))
    return RecipeDriver(
        load_recipe(path),
        data_dir=folder / "data",
        environment={"PATH": os.environ["PATH"], **(environment or {})},
        limits=limits or OutputLimits(),
        kill_grace_s=kill_grace_s,
    )


def one_step(*argv: str, **step: object) -> dict[str, object]:
    """Return the jobs of a recipe whose only job, create_site, has the only step `only`."""
    return {"create_site": {"steps": [{"name": "only", "title": "Only", "timeout_s": 20, "argv": argv, **step}]}}


async def run_step(
    driver: ProvisioningDriver,
    step: str = "only",
    *,
    kind: str = "create_site",
    target: SiteTarget | None = None,
    job_id: UUID | None = None,
    attempt: int = 1,
    outputs: Mapping[str, str] = NO_OUTPUTS,
    report: Report | None = None,
) -> Mapping[str, str]:
    return await driver.run_step(
        kind,
        step,
        target or make_target(),
        job_id=job_id or uuid4(),
        attempt=attempt,
        outputs=outputs,
        report=report or Report(),
    )


async def run_job(
    driver: ProvisioningDriver,
    kind: str,
    target: SiteTarget,
    *,
    job_id: UUID | None = None,
    inputs: Mapping[str, str] = NO_OUTPUTS,
    report: Report | None = None,
    until: str | None = None,
) -> dict[str, str]:
    """Run a job's steps in order, up to and including `until`, as the services floor does; return all outputs."""
    outputs = dict(inputs)
    job_id = job_id or uuid4()
    for step in driver.plan(kind):
        outputs |= await run_step(
            driver, step.name, kind=kind, target=target, job_id=job_id, outputs=outputs, report=report
        )
        if step.name == until:
            break
    return outputs


async def undo_job(
    driver: ProvisioningDriver,
    kind: str,
    target: SiteTarget,
    *,
    job_id: UUID,
    outputs: Mapping[str, str] = NO_OUTPUTS,
    report: Report | None = None,
) -> None:
    """Compensate every step of a job, the last first, as the services floor does."""
    for step in reversed(driver.plan(kind)):
        await driver.compensate(kind, step.name, target, job_id=job_id, outputs=outputs, report=report or Report())


def text_of(place: str | Path) -> str:
    return Path(place).read_text()


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but was not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}


def wait_until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Wait, in a thread, until something is the case; fails the test when it does not become so."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
