"""Token buckets: how much passes at once, and how long to wait for more."""

from realtime.limits import Bucket


def test_two_seconds_worth_pass_at_once_and_then_the_rate() -> None:
    bucket = Bucket(10, now=0.0)
    assert [bucket.take(0.0) for _ in range(20)] == [0] * 20
    assert bucket.take(0.0) == 1
    assert [bucket.take(0.5) for _ in range(6)] == [0, 0, 0, 0, 0, 1]


def test_a_slow_rate_says_how_long_to_wait() -> None:
    bucket = Bucket(0.1, now=0.0)
    assert bucket.take(0.0) == 0
    assert bucket.take(0.0) == 10
    assert bucket.take(9.9) == 1
    assert bucket.take(10.1) == 0


def test_less_than_nothing_is_no_limit() -> None:
    unlimited = Bucket(-1, now=0.0)
    assert [unlimited.take(0.0) for _ in range(1000)] == [0] * 1000


def test_a_new_rate_holds_from_now_on() -> None:
    bucket = Bucket(100, now=0.0)
    assert bucket.take(0.0, rate=1) == 0
    assert [bucket.take(0.0, rate=1), bucket.take(0.0, rate=1)] == [0, 1]
    assert bucket.take(0.0, rate=-1) == 0
