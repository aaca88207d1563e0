"""`orchestrator demo`: the main job played from the outside, against a running server, with real clients.

It knows the server only by its public doors, HTTP and Socket.IO, as a partner's program would: nothing here imports
from the floors below. Each step checks what it sees; the first that fails ends the play and says why.
"""

from server.demo.play import play

__all__ = ["play"]
