"""The stage: stores, people and programs of one run, and the two servers and the clients that are put on it."""

import json
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.auth.people import make_people
from bench.realtime.machine import Cores, raise_file_limit
from bench.realtime.stage import Kind, Server, free_port, inherited, installed_peer
from bench.realtime.stores import own_database, own_redis
from bench.realtime.talk import Answer, Broken, Talk
from server.database import plain_url

_PEER = Path(__file__).resolve().parent / "peer"
# As many as there are pairs, with those that warm up, for a letter goes to one person once in a while only.
PEOPLE = 1_005
_STARTS_S = 60.0
# A part takes a quarter of an hour at most; a machine that others use takes longer.
_PATIENCE_S = 3600.0
# A run this small shows that everything works, for which passwords need not cost what they should.
_TRIAL = 0.1
_CHEAP = {"PASSWORD_HASH_MEMORY_KIB": "64", "PASSWORD_HASH_ROUNDS": "1"}
_LIMITS = (
    "AUTH_PER_IP",
    "AUTH_PER_ACCOUNT",
    "USER_TOTAL",
    "PHONE_CODES_PER_IP",
    "PHONE_CODES_PER_PHONE",
    "PHONE_CODES_TOTAL",
    "PHONE_CHECKS_PER_IP",
)


class Crowd(Talk):
    """A client in a process of its own (client.py)."""

    def begin(self, what: str, **details: Any) -> None:
        """Send an order; its answer is heard later."""
        self.say(json.dumps({"do": what, **details}))

    def order(self, what: str, **details: Any) -> Answer:
        """Send an order and wait for its answer, which may be that it has begun."""
        self.begin(what, **details)
        return self.hear(_PATIENCE_S)

    def rest(self) -> Answer:
        """Wait for the end of an order that has begun."""
        return self.hear(_PATIENCE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all parts of a run have in common. `scale` makes every number and time smaller, to try the benchmark."""

    folder: Path
    peer: Path
    cores: Cores
    environment: Mapping[str, str]
    tenant_id: str
    people: int
    scale: float = 1.0

    def count(self, full: int, least: int = 4) -> int:
        """Return a number of requests for this run."""
        return max(least, round(full * self.scale))

    def seconds(self, full: float) -> float:
        """Return a time for this run."""
        return max(1.0, full * self.scale)

    @contextmanager
    def server(self, kind: Kind, **settings: str) -> Iterator[Server]:
        """Start a server of one kind, ours with settings of its own, and wait until it serves."""
        command, environment = self._ours(settings) if kind == "ours" else self._node()
        log = self.folder / f"{kind}.log"
        with Server(command, environment=environment, folder=self.folder, core=self.cores.server, log=log) as server:
            server.port = server.hear(_STARTS_S)["port"]
            yield server

    @contextmanager
    def crowd(self, server: Server, name: str = "crowd") -> Iterator[Crowd]:
        """Start a client on the core for that, and wait until it is ready."""
        command = [sys.executable, "-m", "bench.auth.client", server.url]
        log, core = self.folder / f"{name}.log", self.cores.load
        with Crowd(command, environment=inherited(), folder=self.folder, core=core, log=log) as crowd:
            crowd.hear(_STARTS_S)
            yield crowd

    def _ours(self, settings: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-m", "bench.realtime.host", self.tenant_id]
        return command, {**inherited(), **self.environment, **settings, "PORT": str(free_port())}

    def _node(self) -> tuple[list[str], dict[str, str]]:
        config = {
            "port": free_port(),
            "database": plain_url(self.environment["DATABASE_URL"]),
            "secret": self.environment["SECRET_KEY"],
        }
        return ["node", str(self.peer / "server.mjs")], {**inherited(), "PEER_CONFIG": json.dumps(config)}


@contextmanager
def stage(*, scale: float = 1.0) -> Iterator[Stage]:
    """Set everything up and take it down again; raises Broken when something that is needed is not there."""
    if sys.platform != "linux":
        raise Broken("the benchmark reads /proc and pins processes to cores: it runs on Linux only")
    raise_file_limit()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestrator-bench-")))
        environment = {
            "ENVIRONMENT": "test",
            "DATABASE_URL": stack.enter_context(own_database()),
            "REDIS_URL": stack.enter_context(own_redis()),
            "RABBITMQ_URL": "",
            "SECRET_KEY": secrets.token_hex(32),
            "DATA_DIR": str(folder / "data"),
            "EMITTER_CHANNEL": f"orchestrator.bench.{secrets.token_hex(4)}",
            "LOG_LEVEL": "WARNING",
            # One address signs everybody in here, and what the limits cost is measured nowhere else either.
            **{f"RATE_{name}": "off" for name in _LIMITS},
            **(_CHEAP if scale < _TRIAL else {}),
        }
        people = max(50, round(PEOPLE * scale))
        yield Stage(
            folder=folder,
            peer=installed_peer(_PEER),
            cores=Cores.choose(),
            environment=environment,
            tenant_id=make_people(environment, people),
            people=people,
            scale=scale,
        )
