"""JSON for Socket.IO packets: the project's own encoding behind the interface that python-socketio asks for."""

from typing import Any

from core import json


class SocketJson:
    """Stands where python-socketio expects a JSON module; formatting arguments are ignored, the form is fixed."""

    @staticmethod
    def dumps(value: object, **_: object) -> str:
        return json.dumps_text(value)

    @staticmethod
    def loads(text: str | bytes, **_: object) -> Any:
        # What is said to a socket goes into no table as it is, and stock clients can say anything.
        return json.loads_any(text)
