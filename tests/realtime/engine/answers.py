"""How an Engine.IO server refuses: the bodies of its answers."""

import json

NOBODY = json.dumps({"code": 1, "message": "Session ID unknown"}, separators=(",", ":"))
BAD_REQUEST = json.dumps({"code": 3, "message": "Bad request"}, separators=(",", ":"))
