"""Passwords are hashed by processes of their own, a few at a time, which end with their server."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.passwords import Verdict
from providers.passwords.hasher import PasswordHasher


@pytest.fixture(scope="module")
async def hasher() -> AsyncIterator[PasswordHasher]:
    hasher = PasswordHasher(workers=2)
    yield hasher
    hasher.close()


@pytest.fixture(autouse=True)
def spare_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a process that gives way may wait for longer than a server is willing to."""
    monkeypatch.setattr("providers.passwords.hasher._TURN_S", 60.0)


def children() -> set[int]:
    """Return which processes of passwords this one has."""
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "providers.passwords.process"],
        capture_output=True,
        check=False,
        encoding="ascii",
    )
    return set(map(int, found.stdout.split()))


def gives_way(pid: int) -> bool:
    """Tell whether a process runs only while nobody else wants its core, and else, but little."""
    lowered = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert os.getpriority(os.PRIO_PROCESS, pid) == lowered
    return os.sched_getscheduler(pid) == os.SCHED_IDLE


async def test_hashes_are_computed_in_one_lane_by_a_process_that_gives_way(
    hasher: PasswordHasher,
) -> None:
    assert ",p=1$" in await hasher.hash("correct horse")
    assert all(map(gives_way, children()))


async def test_there_are_not_more_processes_than_cores() -> None:
    mine = os.sched_getaffinity(0)
    before = children()
    os.sched_setaffinity(0, {min(mine)})
    try:
        hasher = PasswordHasher(memory_kib=64, rounds=1)
        await asyncio.gather(*(hasher.hash("correct horse") for _ in range(8)))
    finally:
        os.sched_setaffinity(0, mine)
    assert len(children() - before) == 1
    hasher.close()


async def test_the_loop_keeps_ticking_while_passwords_are_checked(hasher: PasswordHasher) -> None:
    stored = await hasher.hash("correct horse")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    verdicts = await asyncio.gather(*(hasher.verify("correct horse", stored) for _ in range(10)))
    ticking.cancel()
    assert all(verdict.matches for verdict in verdicts)
    # On the loop, ten checks would leave room for a tick or two.
    assert ticks >= 10


async def test_a_storm_of_sign_ins_is_worked_off_by_a_few_processes() -> None:
    before = children()
    hasher = PasswordHasher(workers=2)
    assert children() == before, "whoever signs nobody in needs none"
    stored = await hasher.hash("correct horse")
    assert len(children() - before) == 1
    await asyncio.gather(*(hasher.verify("correct horse", stored) for _ in range(6)))
    assert len(children() - before) == 2
    hasher.close()
    assert children() == before
    with pytest.raises(RuntimeError):
        await hasher.hash("too late")


class TestAProcessThatEnds:
    async def test_is_replaced_unnoticed(self) -> None:
        before = children()
        hasher = PasswordHasher(workers=1, memory_kib=64, rounds=1)
        stored = await hasher.hash("correct horse")
        (first,) = children() - before
        os.kill(first, signal.SIGKILL)
        assert (await hasher.verify("correct horse", stored)).matches
        (second,) = children() - before
        assert second != first
        hasher.close()

    async def test_at_once_is_an_answer_that_asks_to_come_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        hasher = PasswordHasher(workers=1)
        with pytest.raises(Unavailable):
            await hasher.hash("correct horse")
        hasher.close()

    async def test_that_hangs_or_gets_no_turn_is_replaced_for_a_minute_by_one_that_insists(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = children()
        hasher = PasswordHasher(workers=1, memory_kib=64, rounds=1)
        stored = await hasher.hash("correct horse")
        (first,) = children() - before
        os.kill(first, signal.SIGSTOP)
        monkeypatch.setattr("providers.passwords.hasher._TURN_S", 0.5)
        assert (await hasher.verify("correct horse", stored)).matches
        (second,) = children() - before
        assert second != first
        assert not gives_way(second)
        monkeypatch.setattr("providers.passwords.hasher._TURN_S", 60.0)
        monkeypatch.setattr("providers.passwords.hasher._INSISTS_S", 0.0)
        assert (await hasher.verify("correct horse", stored)).matches
        assert (await hasher.verify("correct horse", stored)).matches
        (third,) = children() - before
        assert third != second
        assert gives_way(third)
        hasher.close()

    async def test_that_insists_and_hangs_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = children()
        monkeypatch.setattr("providers.passwords.hasher._TURN_S", 0.0)
        monkeypatch.setattr("providers.passwords.hasher._PATIENCE_S", 0.0)
        hasher = PasswordHasher(workers=1)
        with pytest.raises(Unavailable):
            await hasher.hash("correct horse")
        assert children() == before
        hasher.close()

    async def test_is_not_made_to_by_what_ends_the_server_gracefully(self) -> None:
        before = children()
        hasher = PasswordHasher(workers=1, memory_kib=64, rounds=1)
        stored = await hasher.hash("correct horse")
        (process,) = children() - before
        os.kill(process, signal.SIGINT)
        os.kill(process, signal.SIGTERM)
        assert (await hasher.verify("correct horse", stored)).matches
        assert children() - before == {process}
        hasher.close()

    async def test_ends_with_its_server_however_that_ended(self) -> None:
        server = await asyncio.create_subprocess_exec(sys.executable, "-c", _SERVER, stdout=subprocess.PIPE)
        assert server.stdout is not None
        process = int(await server.stdout.readline())
        server.kill()
        await server.wait()
        while Path(f"/proc/{process}/cmdline").exists():
            await asyncio.sleep(0.01)

    async def test_ends_without_a_word_when_its_server_was_killed_while_it_waited(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "providers.passwords.process", "64", "1"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=writing, stderr=pipe)
        os.close(writing)
        _, complaints = await process.communicate(b'{"password": "correct horse"}\n')
        assert complaints == b""
        assert process.returncode == -signal.SIGPIPE


_SERVER = """
import asyncio, time
from pathlib import Path
from providers.passwords.hasher import PasswordHasher

async def main():
    hasher = PasswordHasher(workers=1, memory_kib=64, rounds=1)
    await hasher.hash("correct horse")
    print(hasher._idle[0]._process.pid, flush=True)
    time.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("password", ["\ud800", "nul\0", "line\nbreak"])
async def test_what_only_json_can_spell_is_a_password_too(hasher: PasswordHasher, password: str) -> None:
    assert (await hasher.verify(password, await hasher.hash(password))).matches
    assert await hasher.verify(f"{password}!", await hasher.hash(password)) == Verdict(matches=False)


async def test_whoever_would_wait_too_long_is_sent_away() -> None:
    hasher = PasswordHasher(workers=2, waiting=3)
    stored = await hasher.hash("correct horse")

    outcomes = await asyncio.gather(
        *(hasher.verify("correct horse", stored) for _ in range(50)), return_exceptions=True
    )

    assert [outcome for outcome in outcomes if not isinstance(outcome, Unavailable)] == [Verdict(matches=True)] * 5
    assert {error.retry_after_s for error in outcomes if isinstance(error, Unavailable)} == {10}
    assert (await hasher.verify("correct horse", stored)).matches, "there is room again"
    hasher.close()


async def test_the_processes_are_told_what_earlier_hashes_cost() -> None:
    hasher = PasswordHasher(workers=1, memory_kib=64, rounds=1, earlier_bcrypt_rounds=4)
    try:
        assert (await hasher.verify("correct horse", await hasher.hash("correct horse"))).matches
        assert not (await hasher.verify("correct horse", None)).matches
        (process,) = hasher._idle
        assert list(process._process.args)[-3:] == ["64", "1", "4"]  # type: ignore[arg-type]
    finally:
        hasher.close()
