"""The probe: a WebSocket that is about to take over a polling session.

https://socket.io/docs/v4/engine-io-protocol/#upgrade
"""

import asyncio

from realtime.engine import frames, packets
from realtime.engine.link import Link
from realtime.engine.session import Session, packet_frame

_NOOP_EVERY_S = 0.1


class Probe:
    """The peer of a WebSocket until it becomes its session's link, or is given up."""

    __slots__ = ("_releasing", "_session", "link")

    def __init__(self, session: Session) -> None:
        self.link: Link | None = None
        self._session = session
        self._releasing = False

    def on_text(self, text: str) -> None:
        if text == packets.PING + packets.PROBE and self.link is not None:
            self.link.write(frames.text_frame(packets.PONG + packets.PROBE))
            if not self._releasing:
                self._releasing = True
                self._release_poll()
        elif text == packets.UPGRADE and self.link is not None and self._session.open:
            self._adopt(self.link)
        else:
            self.give_up()

    def on_binary(self, data: bytes) -> None:  # noqa: ARG002 - a link's peer is called so
        self.give_up()

    def on_overflow(self) -> None:
        self.on_link_lost()

    def on_link_lost(self) -> None:
        self.link = None
        self._session.upgrading = False

    def give_up(self) -> None:
        """Drop the WebSocket, unless it has become the session's; the session goes on by polling."""
        link, self.link = self.link, None
        if link is not None:
            self._session.upgrading = False
            link.close(frames.PROTOCOL_ERROR)

    def _release_poll(self) -> None:
        # The client pauses its polling only between two polls, so a waiting one is answered, again and again.
        polling = self._session.polling
        if self.link is None or polling is None:
            return
        if not self._session.open:
            self.give_up()
            return
        if polling.poll is not None and not polling.queue:
            polling.add(packets.NOOP)
        asyncio.get_running_loop().call_later(_NOOP_EVERY_S, self._release_poll)

    def _adopt(self, link: Link) -> None:
        session, polling = self._session, self._session.polling
        self.link = None
        session.polling, session.link, session.upgrading = None, link, False
        link.peer = session
        if polling is not None:
            for packet in polling.take(len(polling.queue)):
                if packet != packets.NOOP:
                    link.write(packet_frame(packet))
            # A poll that still waits is answered, though a client that upgrades should have none.
            polling.add(packets.NOOP)
