"""A web process that dies of SIGKILL between a commit and its bell, once the file named by CRASH_WHEN exists.

Run by `test_crashes.py`; it is the real server with the worst moment planted into it.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from realtime.exchange import Exchange
from realtime.log import NumberedEvent
from server.cli import main

_real_ring = Exchange.ring


def _die_instead(self: Exchange, events: Sequence[NumberedEvent]) -> None:
    if events and Path(os.environ["CRASH_WHEN"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    _real_ring(self, events)


Exchange.ring = _die_instead  # type: ignore[method-assign]
main(["serve"])
