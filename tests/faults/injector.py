"""The injector: breaks one thing after another, and several at once, as a seed decides."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable

from tests.faults.posts import Post
from tests.faults.rig import Rig

# A fault in words, and how to play it.
Dealt = tuple[str, Callable[[], Awaitable[object]]]

# How long until the next thing breaks, in seconds; most faults last longer.
_PAUSE_S = (0.3, 2.2)


class Injector:
    """Breaks a rig's parts. What is broken and for how long is decided by the seed alone; every fault ends healed.

    Kinds are dealt like cards, so that each has its turn before any has its second.
    """

    def __init__(self, rig: Rig, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.diary: list[str] = []
        self._rig = rig
        self._random = random.Random(seed)
        self._held: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        one, two = rig.webs
        self._kinds: dict[str, tuple[str, Callable[[random.Random], Dealt]]] = {
            "kill one": ("one", lambda rng: self._kill(one, rng)),
            "kill two": ("two", lambda rng: self._kill(two, rng)),
            "terminate one": ("one", lambda rng: self._terminate(one, rng)),
            "terminate two": ("two", lambda rng: self._terminate(two, rng)),
            "freeze one": ("one", lambda rng: self._freeze(one, rng)),
            "freeze two": ("two", lambda rng: self._freeze(two, rng)),
            "kill worker": ("worker", lambda rng: self._kill(rig.worker, rng)),
            "kill redis": ("redis", self._kill_redis),
            "restart redis": ("redis", self._restart_redis),
            "freeze redis": ("redis", self._freeze_redis),
            "flush redis": ("redis", self._flush_redis),
            "cut subscriptions": ("redis", self._cut_subscriptions),
            "restart postgres": ("postgres", self._restart_postgres),
            "cut postgres": ("postgres", self._cut_postgres),
            "crash postgres": ("postgres", self._crash_postgres),
            "cut some clients": ("clients", lambda rng: self._cut_clients(rng.uniform(0.1, 0.6))),
            "cut all clients": ("clients", lambda _: self._cut_clients(1.0)),
        }

    async def run(self, seconds: float) -> None:
        """Break things for so long, and return when everything is whole again."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        under_way = []
        deck: list[str] = []
        while loop.time() - began < seconds:
            if not deck:
                deck = sorted(self._kinds)
                self._random.shuffle(deck)
            kind = deck.pop()
            part, deal = self._kinds[kind]
            details, play = deal(self._random)
            pause_s = self._random.uniform(*_PAUSE_S)
            # A part that is still broken is waited for, so that the seed alone decides what follows what.
            await self._held[part].acquire()
            self.diary.append(f"{loop.time() - began:7.2f} s  {kind} {details}")
            self.done[kind] += 1
            under_way.append(asyncio.create_task(self._play(part, play)))
            await asyncio.sleep(pause_s)
        await asyncio.gather(*under_way)

    async def _play(self, part: str, play: Callable[[], Awaitable[object]]) -> None:
        try:
            await play()
        finally:
            self._held[part].release()

    @staticmethod
    def _kill(post: Post, rng: random.Random) -> Dealt:
        away_s = rng.uniform(0.0, 2.0)

        async def play() -> None:
            await post.kill()
            await asyncio.sleep(away_s)
            await post.start()

        return f"for {away_s:.1f} s", play

    @staticmethod
    def _terminate(post: Post, rng: random.Random) -> Dealt:
        away_s = rng.uniform(0.0, 1.0)

        async def play() -> None:
            await post.terminate()
            await asyncio.sleep(away_s)
            await post.start()

        return f"for {away_s:.1f} s", play

    @staticmethod
    def _freeze(post: Post, rng: random.Random) -> Dealt:
        frozen_s = rng.uniform(0.3, 4.0)

        async def play() -> None:
            post.freeze()
            try:
                await asyncio.sleep(frozen_s)
            finally:
                post.thaw()

        return f"for {frozen_s:.1f} s", play

    def _kill_redis(self, rng: random.Random) -> Dealt:
        away_s = rng.uniform(0.2, 4.0)

        async def play() -> None:
            await self._rig.redis.kill()
            await asyncio.sleep(away_s)
            await self._rig.redis.start()

        return f"for {away_s:.1f} s", play

    def _restart_redis(self, _: random.Random) -> Dealt:
        async def play() -> None:
            await self._rig.redis.stop()
            await self._rig.redis.start()

        return "", play

    def _freeze_redis(self, rng: random.Random) -> Dealt:
        frozen_s = rng.uniform(0.5, 5.0)

        async def play() -> None:
            self._rig.redis.freeze()
            try:
                await asyncio.sleep(frozen_s)
            finally:
                self._rig.redis.thaw()

        return f"for {frozen_s:.1f} s", play

    def _flush_redis(self, _: random.Random) -> Dealt:
        return "", lambda: asyncio.to_thread(self._rig.redis.flush)

    def _cut_subscriptions(self, _: random.Random) -> Dealt:
        return "", lambda: asyncio.to_thread(self._rig.redis.cut_subscriptions)

    def _restart_postgres(self, rng: random.Random) -> Dealt:
        away_s = rng.uniform(0.0, 2.0)

        async def play() -> None:
            await self._rig.postgres.stop()
            await asyncio.sleep(away_s)
            await self._rig.postgres.start()

        return f"for {away_s:.1f} s", play

    def _crash_postgres(self, rng: random.Random) -> Dealt:
        away_s = rng.uniform(0.0, 2.0)

        async def play() -> None:
            await self._rig.postgres.crash()
            await asyncio.sleep(away_s)
            await self._rig.postgres.start()

        return f"for {away_s:.1f} s", play

    def _cut_postgres(self, _: random.Random) -> Dealt:
        return "", self._rig.postgres.cut_connections

    def _cut_clients(self, share: float) -> Dealt:
        async def play() -> None:
            self._rig.gateway.cut(share)

        return f"{share:.0%}", play
