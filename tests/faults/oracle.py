"""The oracle: what each socket was owed by the log, against what it says it heard.

It shares no code with the product: whom a room admits and which namespace hears what stand here once more, as
contract.md 7 tells them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Logged:
    """One event as the log holds it."""

    seq: int
    namespace: str
    room: str


@dataclass(slots=True)
class Record:
    """One socket's life: whose it was, after which number its first greeting let it begin, and what it heard then.

    `unrecovered` counts how often npm's client came back and was not told that it had recovered. `notes` tell of its
    greetings and farewells with their times, for whoever has to find out why something is missing.
    """

    socket: str
    tenant_id: UUID
    user_id: UUID
    manages: bool
    namespace: str
    start: int | None = None
    greetings: int = 0
    unrecovered: int = 0
    heard: list[int] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Faults = dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong, as numbers of events by socket. `foreign` is what a socket heard and was not entitled to."""

    owed: int
    lost: Faults
    doubled: Faults
    inverted: Faults
    foreign: Faults
    reset: dict[str, list[str]]
    never_greeted: list[str]

    @property
    def clean(self) -> bool:
        faults = (self.lost, self.doubled, self.inverted, self.foreign, self.reset, self.never_greeted)
        return not any(faults)

    def __str__(self) -> str:
        summary = (
            f"{self.owed} events owed: {_count(self.lost)} lost, {_count(self.doubled)} doubled, "
            f"{_count(self.inverted)} inverted, {_count(self.foreign)} foreign, {len(self.reset)} sockets reset, "
            f"{len(self.never_greeted)} never greeted"
        )
        lines = [summary]
        for kind in ("lost", "doubled", "inverted", "foreign", "reset"):
            faults: Mapping[str, Sequence[object]] = getattr(self, kind)
            lines += [f"  {kind}: {socket}: {_shortened(what)}" for socket, what in faults.items()]
        lines += [f"  never greeted: {socket}" for socket in self.never_greeted]
        return "\n".join(lines)


def owed(record: Record, log: Iterable[Logged]) -> list[int]:
    """Return the numbers that a socket has to hear, in order."""
    rooms = {f"tenant:{record.tenant_id}", f"tenant:{record.tenant_id}:user:{record.user_id}"}
    if record.manages:
        rooms.add(f"tenant:{record.tenant_id}:managers")
    subject = record.namespace.removeprefix("/ws").rstrip("/")
    start = record.start or 0
    return [
        event.seq
        for event in sorted(log, key=lambda event: event.seq)
        if event.seq > start and event.room in rooms and subject in ("", event.namespace)
    ]


def judge(records: Iterable[Record], logs: Mapping[UUID, Sequence[Logged]]) -> Verdict:
    """Compare every socket's record with its tenant's log."""
    verdict = Verdict(owed=0, lost={}, doubled={}, inverted={}, foreign={}, reset={}, never_greeted=[])
    total = 0
    for record in records:
        if record.start is None:
            verdict.never_greeted.append(record.socket)
        due = owed(record, logs[record.tenant_id])
        total += len(due)
        heard = set(record.heard)
        _note(verdict.lost, record, [seq for seq in due if seq not in heard])
        _note(verdict.doubled, record, [seq for seq, count in Counter(record.heard).items() if count > 1])
        _note(verdict.inverted, record, _inversions(record.heard))
        _note(verdict.foreign, record, sorted(heard - set(due)))
        if record.resets:
            verdict.reset[record.socket] = record.resets
    return Verdict(
        owed=total,
        lost=verdict.lost,
        doubled=verdict.doubled,
        inverted=verdict.inverted,
        foreign=verdict.foreign,
        reset=verdict.reset,
        never_greeted=verdict.never_greeted,
    )


def _inversions(heard: Sequence[int]) -> list[int]:
    """Return the numbers that came, for the first time, after a higher one."""
    highest, late = 0, []
    for seq in dict.fromkeys(heard):
        if seq < highest:
            late.append(seq)
        highest = max(highest, seq)
    return late


def _note(faults: Faults, record: Record, numbers: list[int]) -> None:
    if numbers:
        faults[record.socket] = numbers


def _count(faults: Faults) -> int:
    return sum(map(len, faults.values()))


def _shortened(what: Sequence[object]) -> str:
    shown = ", ".join(map(str, what[:12]))
    return f"{shown}, ... ({len(what)})" if len(what) > 12 else shown
