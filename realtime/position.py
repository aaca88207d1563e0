"""Positions: a place in a tenant's stream as clients keep it, and the token by which npm's client asks to go on there.

`socket.io-client` remembers the trailing string of every event and sends it, with the `pid` it was given, when it
connects again (realtime.md 3.3). Both are self-contained: no instance keeps anything for a client that is away.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from uuid import UUID

_MAC_BYTES = 18


@dataclass(frozen=True, slots=True)
class Position:
    """After which number of which life of the stream a client goes on; an empty epoch stands for any."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"

    @classmethod
    def parse(cls, value: object) -> "Position":
        """Read what `str` wrote; raises ValueError for anything else."""
        epoch, point, seq = value.partition(".") if isinstance(value, str) else ("", "", "")
        # Digits of other scripts, signs and spaces would all be numbers to `int`.
        if not point or not (seq.isascii() and seq.isdigit()) or len(seq) > 19 or len(epoch) > 32:
            raise ValueError("not a position")
        return cls(epoch, int(seq))


class PidDesk:
    """Issues and checks pids: a socket id, bound by a MAC to the namespace, tenant and user it was given to."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, sid: str, *, namespace: str, tenant_id: UUID, user_id: UUID) -> str:
        return f"{sid}.{self._mac(sid, namespace, tenant_id, user_id)}"

    def read(self, pid: object, *, namespace: str, tenant_id: UUID, user_id: UUID) -> str | None:
        """Return the socket id of a pid; None if it is forged or belongs to somebody, or somewhere, else."""
        if not isinstance(pid, str) or not pid.isascii():
            return None
        sid, _, mac = pid.rpartition(".")
        genuine = hmac.compare_digest(mac, self._mac(sid, namespace, tenant_id, user_id))
        return sid if genuine and sid else None

    def _mac(self, sid: str, namespace: str, tenant_id: UUID, user_id: UUID) -> str:
        text = f"{sid}\n{namespace}\n{tenant_id.hex}\n{user_id.hex}"
        digest = hashlib.blake2b(text.encode(), key=self._key, digest_size=_MAC_BYTES, person=b"pid").digest()
        return urlsafe_b64encode(digest).decode()
