"""What a client hears, and where it stands in the log."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log of a tenant: `seq` is the newest number that has been dealt with.

    Numbers count within an `epoch`; a log that was restored from a backup begins a new one.
    """

    epoch: str
    seq: int

    @classmethod
    def read(cls, epoch: object, seq: object) -> "Position | None":
        """Make one from what the wire says, None where it says none."""
        return cls(epoch, seq) if isinstance(epoch, str) and isinstance(seq, int) else None

    @classmethod
    def parse(cls, text: object) -> "Position | None":
        """Read `<epoch>.<seq>`, the form in which `rt:pos` tells a position."""
        epoch, _, number = text.rpartition(".") if isinstance(text, str) else ("", "", "")
        return cls(epoch, int(number)) if epoch and number.isdecimal() else None


class PositionStore(Protocol):
    """Where an application keeps its position, so that a new process goes on where the last one ended.

    Keep one for each server, user, tenant and namespace that you follow.
    """

    async def load(self) -> Position | None:
        """Return what was saved last, or None: then the client begins at the present."""

    async def save(self, position: Position) -> None:
        """Keep `position`; called after each event that the application has dealt with."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    `seq` and `event_id` are None for what the log does not hold: presence, lines of a job's output, and what other
    programs send. `data` is the payload as it came; ignore fields that you do not know.
    """

    name: str
    data: Any
    seq: int | None = None
    event_id: str | None = None

    @classmethod
    def read(cls, name: str, data: Any) -> "Event":
        """Make one from the event's name and payload on the wire."""
        fields = data if isinstance(data, dict) else {}
        seq, event_id = fields.get("seq"), fields.get("event_id")
        if isinstance(seq, int) and isinstance(event_id, str):
            return cls(name, data, seq, event_id)
        return cls(name, data)


@dataclass(frozen=True, slots=True)
class Reset:
    """Events were missed that cannot be told: reload the state over REST; the next event comes after `position`.

    `reason`: `epoch` (the log was restored, numbers began anew), `pruned` (older than the server keeps), `future` (a
    position that the log has not reached), `too_many` (more than it sends again), `invalid` (not a position).
    """

    reason: str
    position: Position
