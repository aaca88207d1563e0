"""The measured server: the project's engine alone, one namespace, one room that every socket joins.

Told what to do on standard input: `flood COUNT` emits, `usage` answers with CPU seconds and resident bytes.
"""

import asyncio
import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from realtime.engine.attach import attach

_PAGE_BYTES = resource.getpagesize()
_FILLER = "x" * 200


async def main(port: int) -> None:
    """Serve until standard input ends."""
    app = web.Application()
    sio = attach(app)

    async def join(sid: str, _environ: dict[str, Any], _auth: object) -> None:
        await sio.enter_room(sid, "room", namespace="/bench")

    sio.on("connect", join, namespace="/bench")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    gc.collect()
    gc.freeze()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := (await reader.readline()).decode().split():
        if line[0] == "flood":
            await _flood(sio, int(line[1]))
        else:
            _tell_usage()
    await runner.cleanup()


async def _flood(sio: Any, count: int) -> None:
    for number in range(count):
        body = {"t": time.monotonic_ns() // 1000, "s": number, "p": _FILLER}
        await sio.emit("event", body, room="room", namespace="/bench")
        await asyncio.sleep(0)


def _tell_usage() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    sys.stdout.write(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "rss": resident}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
