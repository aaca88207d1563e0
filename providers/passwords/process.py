"""The program of a process that hashes passwords for a server (hasher.py) and does nothing else.

    python -m providers.passwords.process MEMORY_KIB ROUNDS [EARLIER_BCRYPT_ROUNDS]

Each line of standard input is an order, `{"password": ..., "stored": ...}` to check or `{"password": ...}` to hash, and
each is answered by one line. It ends with its input, that is with the server, however that ended.
"""

import json
import signal
import sys
from typing import Any

from core.passwords import Hashes


def _answer(hashes: Hashes, order: dict[str, Any]) -> dict[str, Any]:
    if "stored" not in order:
        return {"hash": hashes.hash(order["password"])}
    verdict = hashes.check(order["password"], order["stored"])
    return {"matches": verdict.matches, "upgraded_hash": verdict.upgraded_hash}


def main(memory_kib: int, rounds: int, earlier_bcrypt_rounds: int | None = None) -> None:
    """Answer standard input, line by line, until it ends."""
    # Both are sent to the whole group of processes; the server decides for us, who still needs an answer or two.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Where nobody reads any more, a server was killed while it waited: then there is nobody to complain to either.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    hashes = Hashes(memory_kib=memory_kib, rounds=rounds, earlier_bcrypt_rounds=earlier_bcrypt_rounds)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(hashes, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
