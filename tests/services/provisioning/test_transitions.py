"""The pure rules of jobs and steps."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from models.provisioning import (
    MAX_INTERRUPTIONS,
    UNFINISHED,
    JobState,
    JobType,
    ProvisioningJob,
    ProvisioningStep,
    StepState,
    first_unfinished,
    last_begun,
    line_place,
    merged_outputs,
    progress_percent,
)

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LEASE = timedelta(seconds=30)


def job(state: JobState = JobState.QUEUED, **fields: object) -> ProvisioningJob:
    values: dict[str, object] = {
        "id": uuid4(),
        "tenant_id": uuid4(),
        "job_type": JobType.CREATE_SITE,
        "state": state,
        "progress": 0,
        "attempt": 0,
        "interruptions": 0,
        "fence": 0,
        "next_run_at": NOW,
        "created_at": NOW,
    }
    return ProvisioningJob(**(values | fields))


def steps(*states: StepState, weights: tuple[int, ...] = ()) -> list[ProvisioningStep]:
    return [
        ProvisioningStep(
            position=place,
            name=f"s{place}",
            title=f"S{place}",
            state=state,
            weight=weights[place] if weights else 1,
            attempts=1,
            failures=0,
            outputs={},
        )
        for place, state in enumerate(states)
    ]


PENDING, RUNNING, DONE, FAILED, UNDONE = StepState


@pytest.mark.parametrize(
    ("state", "fields", "due"),
    [
        (JobState.QUEUED, {}, True),
        (JobState.RETRYING, {}, True),
        (JobState.RETRYING, {"next_run_at": NOW + timedelta(seconds=1)}, False),
        (JobState.RUNNING, {"lease_until": NOW}, True),
        (JobState.RUNNING, {"lease_until": NOW + timedelta(seconds=1)}, False),
        (JobState.SUCCEEDED, {}, False),
        (JobState.FAILED, {}, False),
        (JobState.CANCELLED, {}, False),
    ],
)
def test_when_a_job_is_due(state: JobState, fields: dict[str, object], *, due: bool) -> None:
    assert job(state, **fields).is_due(NOW) is due


def test_a_claim_fences_the_former_owner_off() -> None:
    claimed = job()
    assert claimed.claim(NOW, lease=LEASE)
    assert (claimed.state, claimed.fence, claimed.attempt, claimed.lease_until) == (
        JobState.RUNNING,
        1,
        1,
        NOW + LEASE,
    )
    later = NOW + timedelta(minutes=1)
    assert claimed.claim(later, lease=LEASE)
    assert (claimed.fence, claimed.attempt, claimed.interruptions, claimed.started_at) == (2, 2, 1, NOW)


def test_only_lost_workers_count_as_interruptions() -> None:
    claimed = job()
    for _ in range(MAX_INTERRUPTIONS * 2):
        assert claimed.claim(NOW, lease=LEASE)
        claimed.back_off("again", until=NOW)
    assert claimed.interruptions == 0


def test_too_many_interruptions_end_it() -> None:
    claimed = job()
    assert [claimed.claim(NOW, lease=LEASE) for _ in range(MAX_INTERRUPTIONS + 1)] == [True] * MAX_INTERRUPTIONS + [
        False
    ]
    assert claimed.fence == MAX_INTERRUPTIONS


@pytest.mark.parametrize("state", JobState)
def test_only_finished_jobs_are_retried(state: JobState) -> None:
    retried = job(state, progress=40, error="x", started_at=NOW, completed_at=NOW, cancel_requested_at=NOW, attempt=3)
    assert retried.retry(NOW) is (state not in UNFINISHED)
    if state not in UNFINISHED:
        assert (retried.state, retried.progress, retried.message, retried.error) == (JobState.QUEUED, 0, "Queued", None)
        assert (retried.started_at, retried.completed_at, retried.cancel_requested_at) == (None, None, None)
        assert (retried.attempt, retried.interruptions) == (3, 0)
    else:
        assert (retried.state, retried.error) == (state, "x")


@pytest.mark.parametrize(
    ("state", "step_state", "at_once"),
    [
        (JobState.QUEUED, PENDING, True),
        (JobState.QUEUED, UNDONE, True),
        (JobState.QUEUED, DONE, False),
        (JobState.RETRYING, PENDING, True),
        (JobState.RETRYING, FAILED, False),
        (JobState.RETRYING, RUNNING, False),
        (JobState.RUNNING, PENDING, False),
    ],
)
def test_what_can_be_cancelled_at_once(state: JobState, step_state: StepState, *, at_once: bool) -> None:
    assert job(state).can_cancel_at_once(steps(step_state, PENDING)) is at_once


def test_a_wish_to_cancel_keeps_its_first_moment_and_makes_a_waiting_job_due() -> None:
    waiting = job(JobState.RETRYING, next_run_at=NOW + timedelta(hours=1))
    waiting.request_cancel(NOW)
    waiting.request_cancel(NOW + timedelta(minutes=1))
    assert (waiting.cancel_requested_at, waiting.message) == (NOW, "Cancelling")
    assert waiting.next_run_at == NOW + timedelta(minutes=1)
    running = job(JobState.RUNNING)
    running.request_cancel(NOW + timedelta(minutes=1))
    assert running.next_run_at == NOW


def test_the_line_begins_with_what_has_begun() -> None:
    early, late = NOW, NOW + timedelta(seconds=1)
    old = job(created_at=early, id=UUID(int=1))
    twin = job(created_at=early, id=UUID(int=2))
    retrying = job(JobState.RETRYING, created_at=late)
    running = job(JobState.RUNNING, created_at=late)
    assert sorted([twin, retrying, old, running], key=line_place) == [running, retrying, old, twin]


def test_where_a_job_goes_on_and_where_it_is_undone() -> None:
    journal = steps(DONE, DONE, FAILED, PENDING)
    assert first_unfinished(journal) is journal[2]
    assert last_begun(journal) is journal[2]
    journal[2].compensate(NOW)
    assert last_begun(journal) is journal[1]
    assert first_unfinished(steps(DONE, DONE)) is None
    assert last_begun(steps(UNDONE, PENDING)) is None


def test_a_step_through_its_life() -> None:
    [one] = steps(PENDING)
    one.attempts = 0
    one.begin(NOW)
    assert (one.state, one.attempts, one.is_begun) == (RUNNING, 1, True)
    one.fail("broken", now=NOW)
    assert (one.state, one.failures, one.error) == (FAILED, 1, "broken")
    one.begin(NOW)
    assert (one.attempts, one.error, one.finished_at) == (2, None, None)
    one.interrupt(NOW)
    assert (one.state, one.failures, one.error) == (FAILED, 1, "Interrupted")
    one.begin(NOW)
    one.succeed({"a": "1"}, now=NOW)
    assert (one.state, one.outputs, one.finished_at) == (DONE, {"a": "1"}, NOW)
    one.compensate(NOW)
    assert (one.state, one.outputs, one.is_begun) == (UNDONE, {}, False)
    one.begin(NOW)
    assert one.attempts == 1, "what was undone is begun for the first time again"
    one.reset()
    assert (one.state, one.attempts, one.failures, one.started_at) == (PENDING, 0, 0, None)


@pytest.mark.parametrize(
    ("states", "fraction", "percent"),
    [
        ((PENDING, PENDING, PENDING), 0.0, 0),
        ((DONE, PENDING, PENDING), 0.0, 20),
        ((DONE, RUNNING, PENDING), 0.5, 35),
        ((DONE, RUNNING, PENDING), 7.0, 50),
        ((DONE, RUNNING, PENDING), -1.0, 20),
        ((DONE, DONE, RUNNING), 1.0, 99),
        ((DONE, DONE, DONE), 0.0, 100),
        ((DONE, UNDONE, UNDONE), 0.0, 20),
    ],
)
def test_progress_is_earned(states: tuple[StepState, ...], fraction: float, percent: int) -> None:
    assert progress_percent(steps(*states, weights=(2, 3, 5)), fraction=fraction) == percent


def test_later_outputs_go_before_earlier_ones() -> None:
    journal = steps(DONE, DONE)
    journal[0].outputs = {"a": "1", "b": "1"}
    journal[1].outputs = {"b": "2"}
    assert merged_outputs(journal) == {"a": "1", "b": "2"}
