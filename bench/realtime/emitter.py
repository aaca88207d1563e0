"""An outside program that speaks to our clients through Redis, in the format of python-socketio's write-only manager.

On each line of standard input, `COUNT SIZE ROOM`, it says that many events as fast as it can.

    python -m bench.realtime.emitter REDIS_URL CHANNEL
"""

import json
import sys
import time
from typing import Any

import socketio
from redis import Redis

from bench.realtime.events import NAME, NAMESPACE, body

# How many messages go to Redis at once: waiting for its answer after each would measure the way there and back.
_AHEAD = 500


class Emitter(socketio.RedisManager):  # type: ignore[misc]
    """The library's manager, except that messages are sent many at a time, as the peer's emitter sends them."""

    def __init__(self, redis_url: str, channel: str) -> None:
        super().__init__(redis_url, channel=channel, write_only=True)
        self._underway = Redis.from_url(redis_url).pipeline(transaction=False)

    def _publish(self, data: dict[str, Any]) -> None:
        self._underway.publish(self.channel, self.json.dumps(data))
        if len(self._underway) >= _AHEAD:
            self.send()

    def send(self) -> None:
        """Send what is still held back."""
        self._underway.execute()


def main(redis_url: str, channel: str) -> None:
    """Serve until standard input ends."""
    emitter = Emitter(redis_url, channel)
    tell({})
    for line in sys.stdin:
        count, size, room = line.split()
        began = time.monotonic()
        for number in range(int(count)):
            emitter.emit(NAME, body(number, int(size)), room=room, namespace=NAMESPACE)
        emitter.send()
        tell({"said": int(count), "took_s": time.monotonic() - began})


def tell(answer: dict[str, float]) -> None:
    """Write one answer."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
