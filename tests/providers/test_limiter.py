"""Rate limits: exact under parallel hits, shared by instances, also while Redis is away, and honest about the wait."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from core.errors import Unavailable
from core.windows import Window
from providers.limiter import WindowRateLimiter
from services.attempts import AttemptCounts
from services.unit_of_work import UnitOfWorkFactory
from tests.support.stores import free_port, private_redis

RULE = "10/minute"


@pytest.fixture(scope="module")
def redis_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, redis_folder: Path) -> AsyncIterator[WindowRateLimiter]:
    if request.param == "memory":
        yield WindowRateLimiter("")
        return
    with private_redis(redis_folder) as port:
        limiter = WindowRateLimiter(f"redis://127.0.0.1:{port}/0")
        yield limiter
        await limiter.aclose()


async def allowed(*limiters: WindowRateLimiter, hits: int, key: str = "k", rule: str = RULE) -> int:
    """Hit all limiters in turn, all at once, and count how many hits were allowed."""
    waits = await asyncio.gather(*(limiters[number % len(limiters)].hit(rule, key) for number in range(hits)))
    return waits.count(None)


async def test_parallel_hits_are_counted_exactly(limiter: WindowRateLimiter) -> None:
    assert await allowed(limiter, hits=50) == 10
    assert await allowed(limiter, hits=5) == 0


async def test_each_key_and_each_rule_counts_for_itself(limiter: WindowRateLimiter) -> None:
    assert await allowed(limiter, hits=20, key="a") == 10
    assert await allowed(limiter, hits=20, key="b") == 10
    assert await allowed(limiter, hits=20, key="a", rule="3/hour") == 3
    assert await limiter.hit(RULE, "auth_per_ip", "1.2.3.4") is None
    assert await limiter.hit(RULE, "user_total", "1.2.3.4") is None
    # Parts of a key do not run together.
    assert await limiter.hit("1/minute", "x", "yz") is None
    assert await limiter.hit("1/minute", "xy", "z") is None
    assert await limiter.hit("1/minute", "x", "yz") is not None


async def test_looking_counts_nothing(limiter: WindowRateLimiter) -> None:
    for _ in range(20):
        assert await limiter.wait_s(RULE, "k") is None
    assert await allowed(limiter, hits=10) == 10
    wait_s = await limiter.wait_s(RULE, "k")
    assert wait_s is not None
    assert 50 <= wait_s <= 61


async def test_what_is_cleared_may_be_hit_anew(limiter: WindowRateLimiter) -> None:
    rule = "10/minute;12/hour"
    assert await allowed(limiter, hits=20, rule=rule) == 10
    assert await allowed(limiter, hits=20, rule=rule, key="another") == 10

    await limiter.clear(rule, "k")

    assert await allowed(limiter, hits=20, rule=rule) == 10, "of the minute and of the hour"
    assert await allowed(limiter, hits=5, rule=rule, key="another") == 0


async def test_the_wait_is_sane(limiter: WindowRateLimiter) -> None:
    await allowed(limiter, hits=10)
    wait_s = await limiter.hit(RULE, "k")
    assert isinstance(wait_s, int)
    assert 50 <= wait_s <= 61
    await limiter.hit("1/hour", "k")
    hour_s = await limiter.hit("1/hour", "k")
    assert hour_s is not None
    assert 3500 <= hour_s <= 3601


async def test_after_the_wait_one_may_come_again(limiter: WindowRateLimiter) -> None:
    rule = "2/second"
    assert await allowed(limiter, hits=5, rule=rule) == 2
    wait_s = await limiter.hit(rule, "k")
    assert wait_s is not None
    assert 1 <= wait_s <= 2
    await asyncio.sleep(wait_s)
    assert await limiter.hit(rule, "k") is None


async def test_refused_hits_do_not_prolong_the_wait(limiter: WindowRateLimiter) -> None:
    rule = "2/second"
    await allowed(limiter, hits=2, rule=rule)
    begun = monotonic()
    while monotonic() - begun < 5:
        if await limiter.hit(rule, "k") is None:
            break
        await asyncio.sleep(0.05)
    assert monotonic() - begun < 3, "whoever knocks on is let in as soon as whoever waits"


async def test_all_windows_of_a_rule_hold(limiter: WindowRateLimiter) -> None:
    rule = "2/second;5/hour"
    assert await allowed(limiter, hits=30, rule=rule) == 2
    short_s = await limiter.hit(rule, "k")
    assert short_s is not None
    assert short_s <= 2, "the second refuses, not the hour"
    passed = 2
    while passed < 5:
        await asyncio.sleep(1.05)
        # Of each crowd what the second refuses is not taken from the hour.
        passed += await allowed(limiter, hits=10, rule=rule)
    assert passed == 5
    await asyncio.sleep(1.05)

    long_s = await limiter.hit(rule, "k")

    assert long_s is not None
    assert 3500 <= long_s <= 3601
    assert await allowed(limiter, hits=3, rule="2/second") == 2, "what the hour refuses is not taken from the second"


async def test_a_window_said_twice_counts_once(limiter: WindowRateLimiter) -> None:
    assert await allowed(limiter, hits=20, rule="10/minute;10/minute") == 10


async def test_instances_share_one_count_over_redis(redis_folder: Path) -> None:
    with private_redis(redis_folder) as port:
        limiters = [WindowRateLimiter(f"redis://127.0.0.1:{port}/0") for _ in range(2)]
        assert await allowed(*limiters, hits=50) == 10
        assert await allowed(*limiters, hits=50, key="two windows", rule="20/minute;7/hour") == 7
        assert await allowed(limiters[1], hits=5) == 0
        for limiter in limiters:
            await limiter.aclose()


async def test_without_redis_each_instance_counts_for_itself() -> None:
    limiters = [WindowRateLimiter(""), WindowRateLimiter("")]
    assert await allowed(*limiters, hits=50) == 20


async def test_redis_may_go_and_come_back(redis_folder: Path) -> None:
    """While it is away every instance counts for itself: nobody is locked out, and nobody waits for it."""
    port = free_port()
    limiter = WindowRateLimiter(f"redis://127.0.0.1:{port}/0")
    started = monotonic()
    with capture_logs() as logs:
        assert await allowed(limiter, hits=20, key="away") == 10
    assert monotonic() - started < 5
    assert {line["log_level"] for line in logs} == {"warning"}
    with private_redis(redis_folder, port=port):
        assert await allowed(limiter, hits=20, key="back") == 10
        other = WindowRateLimiter(f"redis://127.0.0.1:{port}/0")
        assert await allowed(other, hits=5, key="back") == 0, "counted in Redis again"
        await other.aclose()
    with capture_logs():
        assert await allowed(limiter, hits=20, key="away again") == 10
    await limiter.aclose()


async def test_what_guards_secrets_is_counted_together_while_redis_is_away(
    units: UnitOfWorkFactory, redis_folder: Path
) -> None:
    port, key = free_port(), uuid4().hex
    counts = AttemptCounts(units)
    limiters = [
        WindowRateLimiter(f"redis://127.0.0.1:{port}/0", backstop=counts, guarding=("guarded",)) for _ in range(2)
    ]
    with capture_logs():
        hits = [limiters[number % 2].hit(RULE, "guarded", key) for number in range(50)]
        assert (await asyncio.gather(*hits)).count(None) == 10
        hits = [limiters[number % 2].hit(RULE, "other", key) for number in range(50)]
        assert (await asyncio.gather(*hits)).count(None) == 20, "of everything else each counts its own"
        hits = [limiters[number % 2].hit("20/minute;7/hour", "guarded", key) for number in range(50)]
        assert (await asyncio.gather(*hits)).count(None) == 7
        wait_s = await limiters[0].hit(RULE, "guarded", key)
    assert wait_s is not None
    assert 50 <= wait_s <= 61
    for limiter in limiters:
        await limiter.aclose()


async def test_what_guards_secrets_is_refused_while_the_database_is_away_too() -> None:
    class Away:
        async def hit(self, *windows: Window) -> int | None:
            raise Unavailable

        async def clear(self, *keys: str) -> None:
            raise Unavailable

    limiter = WindowRateLimiter(f"redis://127.0.0.1:{free_port()}/0", backstop=Away(), guarding=("guarded",))
    with capture_logs(), pytest.raises(Unavailable):
        await limiter.hit(RULE, "guarded", "k")
    with capture_logs() as logs:
        await limiter.clear(RULE, "guarded", "k")
    assert [line["log_level"] for line in logs] == ["warning", "warning"], "clearing fails nobody"
    await limiter.aclose()


async def test_a_redis_that_hangs_costs_little(redis_folder: Path) -> None:
    """A server that takes connections but never answers must not hold up every request."""

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limiter = WindowRateLimiter(f"redis://127.0.0.1:{port}/0")
    started = monotonic()
    with capture_logs():
        assert await limiter.hit(RULE, "k") is None
    assert monotonic() - started < 3
    await limiter.aclose()
    server.close()
    await server.wait_closed()
