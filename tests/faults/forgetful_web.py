"""A web process without gap repair: it delivers what bells bring and never looks into the log for what they did not.

Run by `test_oracle.py`, which must notice. It is the real server with the fault planted into it.
"""

from collections.abc import Sequence

from realtime.follower import Follower, Stream
from realtime.log import NumberedEvent
from server.cli import main


async def _skip_the_gap(self: Follower, stream: Stream) -> Sequence[NumberedEvent]:
    return [stream.held[min(stream.held)]] if stream.held else ()


async def _look_at_nothing(self: Follower) -> None:
    return None


Follower._read = _skip_the_gap  # type: ignore[method-assign]
Follower.check_heads = _look_at_nothing  # type: ignore[method-assign]
main(["serve"])
