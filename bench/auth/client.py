"""A client that signs in and refreshes, or listens, or compares: in a process of its own, so that it can be pinned.

    python -m bench.auth.client URL

Each order is a JSON object a line, `{"do": ...}`, and each is answered by one once it has been carried out:

    logins     `count` people sign in, `at_once` at a time
    storm      people sign in, `at_once` at a time, until `calm` is said; answers at once
    calm       ends the storm; answers how many signed in
    refreshes  `sessions` sessions exchange their tokens, one after the other in each, `count` in all
    ping       a socket asks `rate` times a second for `seconds` seconds; answers percentiles of the way there and back
    pairs      of each of `kinds`, one after the other, `count` times a request about somebody and one about nobody, by
               turns; answers both medians of each
"""

import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import socketio
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from bench.auth.people import PASSWORD, email_of, phone_of

# An order's details, and as well its answer.
Order = dict[str, Any]
Body = Mapping[str, str]

_PATIENCE_S = 120.0
_WRONG = "not the password of anybody"
# Numbers of people whom nobody has made; a fresh one for each request.
_NOBODY = 5_000_000


class Refused(Exception):
    """The server answered otherwise than it should; the message says what."""


class Client:
    """Carries out what standard input asks for."""

    def __init__(self, http: ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self._next = 0
        self._storm: list[asyncio.Task[None]] = []
        self._stormed = 0
        self._table: Mapping[str, Callable[..., Awaitable[Order]]] = {
            "logins": self._logins,
            "storm": self._begin_storm,
            "calm": self._calm,
            "refreshes": self._refreshes,
            "ping": self._ping,
            "pairs": self._pairs,
        }

    async def run(self) -> None:
        """Carry out orders, one after the other, until standard input ends."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        tell({})
        while line := await reader.readline():
            order = json.loads(line)
            what = order.pop("do")
            try:
                tell(await self._table[what](**order))
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the benchmark is told and ends
                tell({"failure": f"{what}: {error!r}"})

    async def _logins(self, *, people: int, count: int, at_once: int) -> Order:
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await self._sign_in(people)

        began = time.monotonic()
        await asyncio.gather(*(some() for _ in range(at_once)))
        return {"took_s": time.monotonic() - began}

    async def _begin_storm(self, *, people: int, at_once: int) -> Order:
        async def go_on() -> None:
            while True:
                await self._sign_in(people)
                self._stormed += 1

        self._stormed = 0
        self._storm = [asyncio.create_task(go_on()) for _ in range(at_once)]
        return {}

    async def _calm(self) -> Order:
        ended = [task for task in self._storm if task.done()]
        for task in self._storm:
            task.cancel()
        await asyncio.gather(*self._storm, return_exceptions=True)
        # Whoever ended before was refused, and says why.
        for task in ended:
            await task
        return {"count": self._stormed}

    async def _refreshes(self, *, people: int, sessions: int, count: int) -> Order:
        tokens = [(await self._sign_in(people))["refresh_token"] for _ in range(sessions)]
        tell({"ready": True})
        left = iter(range(count))

        async def some(token: str) -> None:
            for _ in left:
                body = {"refresh_token": token}
                token = (await self._post("/api/v1/auth/refresh", body, 200))["data"]["refresh_token"]

        began = time.monotonic()
        await asyncio.gather(*map(some, tokens))
        return {"took_s": time.monotonic() - began}

    async def _ping(self, *, people: int, rate: float, seconds: float) -> Order:
        token = (await self._sign_in(people))["access_token"]
        socket = socketio.AsyncClient(reconnection=False)
        await socket.connect(self._url, auth={"token": token}, transports=["websocket"], wait_timeout=_PATIENCE_S)
        tell({"ready": True})
        took: list[float] = []

        async def ask() -> None:
            sent = time.monotonic()
            answer = await socket.call("ping", timeout=_PATIENCE_S)
            if not answer["ok"]:
                raise Refused(f"ping: {answer}")
            took.append((time.monotonic() - sent) * 1000)

        began = time.monotonic()
        # One that takes long must not keep those after it from being late too.
        async with asyncio.TaskGroup() as asking:
            for number in range(round(seconds * rate)):
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                asking.create_task(ask())
        await socket.disconnect()
        cuts = statistics.quantiles(took, n=100)
        return {"count": len(took), "p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(took)}

    async def _pairs(self, *, kinds: Sequence[str], count: int) -> Order:
        return {kind: await self._pairs_of(kind, count) for kind in kinds}

    async def _pairs_of(self, kind: str, count: int) -> Order:
        ask = _QUESTIONS[kind]
        took: dict[str, list[float]] = {"known": [], "unknown": []}
        # The first requests of a server are slower than all others.
        for number in range(count + 5):
            # Which comes first is left to chance, so that whatever the first one costs the second is shared.
            both = [("known", count + 4 - number), ("unknown", _NOBODY + number)]
            random.shuffle(both)
            for who, person in both:
                path, body, statuses = ask(person)
                began = time.monotonic()
                await self._post(path, body, *statuses)
                if number >= 5:
                    took[who].append((time.monotonic() - began) * 1000)
        known, unknown = (statistics.median(took[who]) for who in ("known", "unknown"))
        return {"known_ms": known, "unknown_ms": unknown, "difference_ms": abs(known - unknown)}

    async def _sign_in(self, people: int) -> Any:
        self._next = (self._next + 1) % people
        body = {"email": email_of(self._next), "password": PASSWORD}
        return (await self._post("/api/v1/auth/login", body, 200))["data"]

    async def _post(self, path: str, body: Body, *expected: int) -> Any:
        async with self._http.post(f"{self._url}{path}", json=body) as response:
            answer = await response.json()
            if response.status not in expected:
                raise Refused(f"{path} answered {response.status}: {answer}")
            return answer


def _register(person: int) -> tuple[str, Body, Sequence[int]]:
    name = f"Company of {person}"
    body = {"email": email_of(person), "password": PASSWORD, "full_name": "New", "company_name": name}
    return "/api/v1/auth/register", body, (202,)


_QUESTIONS: Mapping[str, Callable[[int], tuple[str, Body, Sequence[int]]]] = {
    "login": lambda person: ("/api/v1/auth/login", {"email": email_of(person), "password": _WRONG}, (401,)),
    "phone-login": lambda person: (
        "/api/auth/login-password",
        {"phone": phone_of(person), "password": _WRONG},
        (401,),
    ),
    "forgot": lambda person: ("/api/v1/auth/forgot-password", {"email": email_of(person)}, (200,)),
    "send-code": lambda person: ("/api/auth/send-code", {"phone": phone_of(person)}, (200,)),
    "check-phone": lambda person: ("/api/auth/check-phone", {"phone": phone_of(person)}, (200,)),
    "register": _register,
}
# Which kinds one client asks after, one after the other, while others ask after the others. Those that hash wait for
# each other's hashes, so they share a client; the others are answered after a while of their own.
KINDS = (("login", "phone-login", "register"), ("forgot",), ("send-code", "check-phone"))


def tell(answer: Order) -> None:
    """Say one line on standard output."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


async def main(url: str) -> None:
    """Serve the orders of standard input."""
    timeout, connector = ClientTimeout(total=_PATIENCE_S), TCPConnector(limit=0)
    async with ClientSession(timeout=timeout, connector=connector) as http:
        await Client(http, url).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
