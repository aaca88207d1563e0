"""Waiting after failures: within its bounds, longer after each failure, and never the same for everybody."""

from hypothesis import given
from hypothesis import strategies as st

from core.backoff import full_jitter_s


@given(
    attempt=st.integers(1, 10_000),
    base_s=st.floats(0.001, 60),
    times=st.floats(1, 10_000),
)
def test_a_wait_stays_within_its_bounds(attempt: int, base_s: float, times: float) -> None:
    cap_s = base_s * times
    wait_s = full_jitter_s(attempt, base_s=base_s, cap_s=cap_s)
    # The exponent is limited here only so that Python can compute the expected bound.
    assert base_s / 2 <= wait_s <= min(cap_s, base_s * 2 ** min(attempt - 1, 60))


def test_waits_grow_until_the_cap() -> None:
    longest = [max(full_jitter_s(attempt, base_s=1, cap_s=20) for _ in range(500)) for attempt in (1, 2, 3, 4, 5, 50)]
    for wait_s, bound_s in zip(longest, (1, 2, 4, 8, 16, 20), strict=True):
        assert bound_s * 0.9 < wait_s <= bound_s


def test_many_waiters_do_not_return_at_once() -> None:
    waits = {round(full_jitter_s(4, base_s=1, cap_s=60), 3) for _ in range(200)}
    assert len(waits) > 150
