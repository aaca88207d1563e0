"""The presence board of several instances: each writes into Redis who is connected to it, and reads the others.

In Redis, below `erpmax:presence:{realm}:`

- `instances`, a set of the instances that have written anything, and `alive:{instance}`, which lapses with it;
- `{tenant}:{instance}`, a hash of user -> number of sockets;
- `serials:{instance}`, a hash of tenant -> serial of the instance's last change of that tenant.

What an instance has written it also tells those who follow the tenant, with the serial before and after, so that they
need not read it. Once a second everybody compares serials, which makes good whatever was not heard. Nobody waits for
any of this: one task does it, and while Redis is away an instance knows only its own sockets.
"""

import asyncio
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.tasks import stopping
from realtime.exchange import Exchange
from realtime.presence import MACHINES, LocalBoard

# How often an instance shows that it is alive and looks for what it has not heard, in seconds.
_LOOK_S = 1.0
# After this long without a sign of life an instance is dead, and what was known of others is no longer believed.
_LEASE_S = 6.0
# Changes are gathered for this long, so that a storm of connections is not one of round trips.
_GATHER_S = 0.02
# How long somebody who asks about a tenant for the first time waits for Redis at most.
_PATIENCE_S = 0.5
# A tenant without sockets here is forgotten when nobody has asked about it for this long.
_IDLE_S = 60.0
# How long an instance that ends takes to say so, at most.
_FAREWELL_S = 1.0
# How many tenants, and how many users of one tenant, go into one round trip.
_BATCH = 500

_KIND = "presence"

T = TypeVar("T")

logger = structlog.get_logger(__name__)


class _View:
    """What is known of one tenant's users on one other instance, as of that instance's change `serial`."""

    __slots__ = ("serial", "sockets", "users")

    def __init__(self, serial: int, users: Mapping[UUID, int]) -> None:
        self.serial = serial
        self.users = dict(users)
        self.sockets = sum(self.users.values())

    def note(self, user_id: UUID, sockets: int) -> bool:
        """Take in how many sockets a user has; returns whether the user has come or gone."""
        before = self.users.pop(user_id, 0)
        if sockets:
            self.users[user_id] = sockets
        self.sockets += sockets - before
        return bool(before) != bool(sockets)


class _Tenant:
    """What is known of one tenant: a view for each other instance that has its users."""

    __slots__ = ("needed_at", "views")

    def __init__(self, now: float) -> None:
        self.needed_at = now
        self.views: dict[str, _View] = {}


class RedisBoard(LocalBoard):
    """The board of an instance among others; `run` keeps it up to date. `realm` keeps installations apart."""

    def __init__(self, redis: Redis, exchange: Exchange, *, realm: str) -> None:
        super().__init__()
        self._redis = redis
        self._exchange = exchange
        self._prefix = f"erpmax:presence:{realm}"
        self._name = _new_name()
        # Whether this name has been shown to be alive; while it was not, nothing is written under it.
        self._claimed = False
        self._in_touch = False
        self._touched_at = 0.0
        self._look_at = 0.0
        self._others: frozenset[str] = frozenset()
        self._tenants: dict[UUID, _Tenant] = {}
        self._serials: dict[UUID, int] = {}
        self._serial = 0
        self._unwritten: dict[UUID, set[UUID]] = {}
        self._unread: set[UUID] = set()
        self._learning: dict[UUID, asyncio.Event] = {}
        self._wake = asyncio.Event()
        exchange.listeners[_KIND] = self._hear

    def arrive(self, tenant_id: UUID, user_id: UUID) -> None:
        super().arrive(tenant_id, user_id)
        self._note(tenant_id, user_id)

    def leave(self, tenant_id: UUID, user_id: UUID) -> None:
        super().leave(tenant_id, user_id)
        self._note(tenant_id, user_id)

    async def learn(self, tenant_id: UUID) -> None:
        tenant = self._tenants.get(tenant_id)
        if tenant is not None:
            tenant.needed_at = _now()
        elif self._in_touch:
            learned = self._learning.setdefault(tenant_id, asyncio.Event())
            self._wake.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await learned.wait()

    async def online(self, tenant_id: UUID) -> frozenset[UUID]:
        await self.learn(tenant_id)
        return frozenset(self.here(tenant_id)).union(*(view.users for view in self._views(tenant_id))) - {MACHINES}

    def sockets_elsewhere(self, tenant_id: UUID) -> int:
        return sum(view.sockets for view in self._views(tenant_id))

    def instances(self) -> int:
        return 1 + len(self._others)

    async def run(self) -> None:
        """Write and read until cancelled; then take leave of the others."""
        try:
            while True:
                await self._turn()
                if stopping():
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._look_at - _now())):
                        await self._wake.wait()
                self._wake.clear()
                await asyncio.sleep(_GATHER_S)
        finally:
            with suppress(RedisError, OSError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self._remove(self._name)

    def _note(self, tenant_id: UUID, user_id: UUID) -> None:
        self._unwritten.setdefault(tenant_id, set()).add(user_id)
        self._wake.set()

    def _views(self, tenant_id: UUID) -> Iterable[_View]:
        tenant = self._tenants.get(tenant_id)
        return tenant.views.values() if tenant is not None else ()

    # One turn of the task

    async def _turn(self) -> None:
        due = _now() >= self._look_at
        if not self._in_touch and not due:
            return
        try:
            if due:
                self._look_at = _now() + _LOOK_S
                await self._look()
            await self._write()
            await self._read({*self._unread, *self._learning})
        except (RedisError, OSError) as error:
            self._miss(error)
        else:
            self._in_touch, self._touched_at = True, _now()
        finally:
            for learned in self._learning.values():
                learned.set()
            self._learning.clear()

    def _miss(self, error: Exception) -> None:
        if self._in_touch:
            logger.warning("presence of other instances is not known", error=repr(error))
        self._in_touch = False
        if _now() - self._touched_at > _LEASE_S:
            self._others = frozenset()
            known, self._tenants = self._tenants, {}
            for tenant_id, tenant in known.items():
                if tenant.views:
                    self.on_change(tenant_id)

    async def _look(self) -> None:
        listed = await self._claim()
        living = await self._living(listed)
        for dead in listed - living:
            logger.info("instance is gone", instance=dead)
            await self._remove(dead)
        self._meet(living)
        self._forget_idle()
        await self._read({*self._tenants, *self._here})

    # Instances

    async def _claim(self) -> set[str]:
        """Show that this instance is alive; returns the names of the others that are listed."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            await pipeline.set(self._key("alive", self._name), 1, px=round(_LEASE_S * 1000), get=True)
            await pipeline.sadd(self._key("instances"), self._name)
            await pipeline.smembers(self._key("instances"))
            held, _, listed = await pipeline.execute()
        if held is None and self._claimed:
            # The lease has lapsed, or Redis has lost everything. The others may be removing at this moment what was
            # written under this name, so that all is written again under a new one.
            former, self._name = self._name, _new_name()
            self._claimed = False
            await self._remove(former)
            return await self._claim()
        if not self._claimed:
            self._claimed = True
            self._serials.clear()
            self._unwritten = {tenant_id: set(users) for tenant_id, users in self._here.items()}
        return {name.decode() for name in listed} - {self._name}

    async def _living(self, names: Collection[str]) -> set[str]:
        asked = list(names)
        signs = await self._redis.mget([self._key("alive", name) for name in asked]) if asked else []
        return {name for name, sign in zip(asked, signs, strict=True) if sign is not None}

    async def _remove(self, name: str) -> None:
        """Remove what an instance has written."""
        serials = self._key("serials", name)
        written: list[Any] = await self._redis.hkeys(serials)
        for batch in _batches(written):
            await self._redis.unlink(*(self._key(tenant.decode(), name) for tenant in batch))
        async with self._redis.pipeline(transaction=False) as pipeline:
            await pipeline.unlink(serials, self._key("alive", name))
            await pipeline.srem(self._key("instances"), name)
            await pipeline.execute()

    def _meet(self, living: Collection[str]) -> None:
        self._others = frozenset(living)
        for tenant_id, tenant in self._tenants.items():
            gone = tenant.views.keys() - self._others
            for name in gone:
                del tenant.views[name]
            if gone:
                self.on_change(tenant_id)

    def _forget_idle(self) -> None:
        before = _now() - _IDLE_S
        for tenant_id, tenant in list(self._tenants.items()):
            if tenant.needed_at < before and tenant_id not in self._here:
                del self._tenants[tenant_id]

    # Writing

    async def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        try:
            for batch in _batches(_slices(unwritten)):
                told = await self._write_batch(batch)
                for tenant_id, message in told if self._others else ():
                    self._exchange.tell(tenant_id, _KIND, message)
        except BaseException:
            # Counts are absolute, so that writing again what may have been written already does no harm.
            for tenant_id, users in unwritten.items():
                self._unwritten.setdefault(tenant_id, set()).update(users)
            raise

    async def _write_batch(self, batch: Iterable[tuple[UUID, list[UUID]]]) -> list[tuple[UUID, dict[str, Any]]]:
        told = []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for tenant_id, users in batch:
                here = self.here(tenant_id)
                counts = {user_id.hex: here.get(user_id, 0) for user_id in users}
                present: dict[Any, Any] = {user: count for user, count in counts.items() if count}
                gone = counts.keys() - present.keys()
                key, serials = self._key(tenant_id.hex, self._name), self._key("serials", self._name)
                if present:
                    await pipeline.hset(key, mapping=present)
                if gone:
                    await pipeline.hdel(key, *gone)
                before, after = self._serials.get(tenant_id, 0), self._next_serial()
                # The serial last: whoever reads it first and the users after never takes old users for new ones.
                if here:
                    self._serials[tenant_id] = after
                    await pipeline.hset(serials, tenant_id.hex, after)
                else:
                    self._serials.pop(tenant_id, None)
                    await pipeline.hdel(serials, tenant_id.hex)
                told.append((tenant_id, {"instance": self._name, "before": before, "after": after, "users": counts}))
            await pipeline.execute()
        return told

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    # Reading

    async def _read(self, tenant_ids: Collection[UUID]) -> None:
        """Read of these tenants whatever is not as it is known here."""
        self._unread.difference_update(tenant_ids)
        others = tuple(self._others)
        for batch in _batches(tenant_ids):
            for tenant_id in batch:
                if tenant_id not in self._tenants:
                    self._tenants[tenant_id] = _Tenant(_now())
            if others:
                await self._read_users(await self._differing(batch, others))

    async def _differing(self, tenant_ids: list[UUID], others: Iterable[str]) -> list[tuple[UUID, str, int]]:
        """Compare serials; returns (tenant, instance, serial) of what has to be read."""
        fields = [tenant_id.hex for tenant_id in tenant_ids]
        differing = []
        for name in others:
            serials = await self._redis.hmget(self._key("serials", name), fields)
            for tenant_id, found in zip(tenant_ids, serials, strict=True):
                view = self._view(tenant_id, name)
                if found is None:
                    if view is not None and view.users:
                        differing.append((tenant_id, name, 0))
                elif view is None or view.serial != int(found):
                    differing.append((tenant_id, name, int(found)))
        return differing

    async def _read_users(self, differing: Iterable[tuple[UUID, str, int]]) -> None:
        for batch in _batches(differing):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for tenant_id, name, _ in batch:
                    await pipeline.hgetall(self._key(tenant_id.hex, name))
                found = await pipeline.execute()
            for (tenant_id, name, serial), users in zip(batch, found, strict=True):
                self._take(tenant_id, name, _View(serial, {UUID(user.decode()): int(n) for user, n in users.items()}))

    def _take(self, tenant_id: UUID, name: str, view: _View) -> None:
        tenant, known = self._tenants.get(tenant_id), self._view(tenant_id, name)
        # What was heard while it was being read may be newer.
        if tenant is None or name not in self._others or (view.serial and known and known.serial > view.serial):
            return
        tenant.views[name] = view
        if (known.users.keys() if known else set()) != view.users.keys():
            self.on_change(tenant_id)

    def _view(self, tenant_id: UUID, name: str) -> _View | None:
        tenant = self._tenants.get(tenant_id)
        return tenant.views.get(name) if tenant is not None else None

    # Hearing

    def _hear(self, tenant_id: UUID, message: Mapping[str, Any]) -> None:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return
        name, before, after = message["instance"], int(message["before"]), int(message["after"])
        if name not in self._others:
            # Somebody new; the next look meets them, and reads what they have written.
            self._wake.set()
            self._look_at = min(self._look_at, self._touched_at + _LOOK_S / 4)
            return
        known = tenant.views.get(name)
        if known is not None and after <= known.serial:
            return
        if before == 0:
            # Until now the instance had none of the tenant's users.
            view = tenant.views[name] = _View(0, {})
        elif known is not None and known.serial == before:
            view = known
        else:
            self._unread.add(tenant_id)
            self._wake.set()
            return
        view.serial = after
        changes = [view.note(UUID(user), count) for user, count in message["users"].items()]
        if any(changes) or (known is not None and known is not view):
            self.on_change(tenant_id)

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def _new_name() -> str:
    return secrets.token_hex(8)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _slices(unwritten: Mapping[UUID, Collection[UUID]]) -> Iterator[tuple[UUID, list[UUID]]]:
    for tenant_id, users in unwritten.items():
        for some in _batches(users):
            yield tenant_id, some


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, _BATCH)):
        yield batch
