"""The stage: stores, people and programs of one run, and the two servers and the load that are put on it."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from bench.realtime.events import NAMESPACE
from bench.realtime.machine import Cores, raise_file_limit
from bench.realtime.people import TOKENS_LIVE_MIN, People, Person, make_people
from bench.realtime.stores import own_database, own_redis
from bench.realtime.talk import Answer, Broken, Talk
from realtime.rooms import tenant_room

Kind = Literal["node", "ours"]

_ROOT = Path(__file__).resolve().parents[2]
_PEER = Path(__file__).resolve().parent / "peer"
_PEOPLE = 500
_STARTS_S = 30.0
# What a process needs of whoever started the benchmark; nothing else of the environment reaches a server.
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


class Server(Talk):
    """A measured server; `port` is where its clients go, known when it is ready."""

    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def do(self, what: str, **details: Any) -> None:
        """Send an order; its answer is heard later."""
        self.say(json.dumps({"do": what, **details}))

    def order(self, what: str, patience_s: float = 60.0, **details: Any) -> Answer:
        """Send an order and wait until it has been carried out."""
        self.do(what, **details)
        return self.hear(patience_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all parts of a run have in common. `scale` makes every number and time smaller, to try the benchmark."""

    loadgen: Path
    folder: Path
    peer: Path
    cores: Cores
    open_files: int
    environment: Mapping[str, str]
    people: People
    scale: float = 1.0

    @property
    def room(self) -> str:
        """The room that every client is in."""
        return tenant_room(self.people.tenant_id)

    @property
    def redis_url(self) -> str:
        return self.environment["REDIS_URL"]

    def count(self, full: int, least: int = 2) -> int:
        """Return a number of clients or events for this run."""
        return max(least, round(full * self.scale))

    def seconds(self, full: float) -> float:
        """Return a time for this run."""
        return max(0.5, full * self.scale)

    @contextmanager
    def server(self, kind: Kind) -> Iterator[Server]:
        """Start a server of one kind and wait until it serves."""
        command, environment = self._ours() if kind == "ours" else self._node()
        log = self.folder / f"{kind}.log"
        with Server(command, environment=environment, folder=self.folder, core=self.cores.server, log=log) as server:
            server.port = server.hear(_STARTS_S)["port"]
            yield server

    @contextmanager
    def load(self, server: Server, *, persons: Sequence[Person] = (), rcvbuf: int = 0) -> Iterator[Talk]:
        """Start a load generator for a server, its clients signed in as `persons` in turn, else as everybody."""
        auths = self.folder / f"auths-{len(persons) or 'all'}.txt"
        everybody = persons or self.people.persons
        auths.write_text("".join(f"{json.dumps({'token': person.token})}\n" for person in everybody))
        command = [str(self.loadgen), "--port", str(server.port), "--nsp", NAMESPACE, "--auth-file", str(auths)]
        # Several source addresses, for one has ports for 28,000 connections only, those just closed included.
        command += ["--srcips", "4", *(["--rcvbuf", str(rcvbuf)] if rcvbuf else [])]
        with self.helper("loadgen", command, {}) as load:
            yield load
            load.say("quit")

    @contextmanager
    def helper(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Talk]:
        """Start something that makes load, on the core for that, and wait until it is ready."""
        log, core = self.folder / f"{name}.log", self.cores.load
        environment = {**inherited(), **environment}
        with Talk(command, environment=environment, folder=self.folder, core=core, log=log) as talk:
            talk.hear(_STARTS_S)
            yield talk

    def script(self, name: str) -> list[str]:
        """Return the command of a script that lies beside the peer's packages."""
        return ["node", str(self.peer / name)]

    def _ours(self) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-m", "bench.realtime.host", str(self.people.tenant_id)]
        return command, {**inherited(), **self.environment, "PORT": str(free_port())}

    def _node(self) -> tuple[list[str], dict[str, str]]:
        config = {
            "port": free_port(),
            "redis": self.redis_url,
            "secret": self.environment["SECRET_KEY"],
            "namespace": NAMESPACE,
        }
        # Without `--expose-gc` memory would be measured with whatever garbage there happens to be.
        command = ["node", "--expose-gc", str(self.peer / "server.mjs")]
        return command, {**inherited(), "PEER_CONFIG": json.dumps(config)}


@contextmanager
def stage(loadgen: Path, *, scale: float = 1.0) -> Iterator[Stage]:
    """Set everything up and take it down again; raises Broken when something that is needed is not there."""
    if sys.platform != "linux":
        raise Broken("the benchmark reads /proc and pins processes to cores: it runs on Linux only")
    if not os.access(loadgen, os.X_OK):
        raise Broken(f"{loadgen} is no program that can be run")
    open_files = raise_file_limit()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestrator-bench-")))
        environment = {
            "ENVIRONMENT": "test",
            "DATABASE_URL": stack.enter_context(own_database()),
            "REDIS_URL": stack.enter_context(own_redis()),
            "RABBITMQ_URL": "",
            "SECRET_KEY": secrets.token_hex(32),
            "DATA_DIR": str(folder / "data"),
            "ACCESS_TOKEN_EXPIRE_MINUTES": str(TOKENS_LIVE_MIN),
            # Redis has one set of channels for all its databases.
            "EMITTER_CHANNEL": f"orchestrator.bench.{secrets.token_hex(4)}",
            "LOG_LEVEL": "WARNING",
        }
        yield Stage(
            loadgen=loadgen.resolve(),
            folder=folder,
            peer=installed_peer(_PEER),
            cores=Cores.choose(),
            open_files=open_files,
            environment=environment,
            people=make_people(environment, _PEOPLE if scale >= 1 else 50),
            scale=scale,
        )


def inherited() -> dict[str, str]:
    """Return what every process that is started here gets."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}  # noqa: TID251 - children need it
    return {**kept, "PYTHONPATH": str(_ROOT)}


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def installed_peer(sources: Path) -> Path:
    """Install the pinned packages once, into a folder of the system's temporary files, and the scripts beside them."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Broken("Node and npm must be on the PATH: the peer runs on Node")
    lock = (sources / "package-lock.json").read_bytes()
    folder = Path(tempfile.gettempdir()) / f"orchestrator-bench-peer-{os.getuid()}-{sha256(lock).hexdigest()[:12]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for source in sources.iterdir():
        shutil.copy(source, folder)
    # npm writes this file last.
    if not (folder / "node_modules" / ".package-lock.json").exists():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise Broken(f"npm could not install the peer: {done.stderr.strip()[-500:]}")
    return folder
