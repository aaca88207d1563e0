"""A fake of Have I Been Pwned's range API (haveibeenpwned.com/API/v3#PwnedPasswords).

It shares no code with the product. A range is asked for by the first five digits of a SHA-1; the answer is text, a line
for each hash that begins so, without those five digits, with a count, in the order of the hashes. `Add-Padding` adds
lines with a count of zero among them.
"""

import asyncio
import hashlib
import re
from types import TracebackType
from typing import Self

from aiohttp import web

_PIECE = 30


class FakeBreachRegister:
    """Use as an async context manager; `base_url` is then where it answers, and `asked` the paths it was asked for."""

    def __init__(self, *passwords: str) -> None:
        self.base_url = ""
        self.asked: list[str] = []
        # What to answer instead of a range.
        self.broken: web.Response | None = None
        self._hashes = {_sha1(word) for word in passwords}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.broken is not None:
            return self.broken
        wanted = re.fullmatch(r"/range/([0-9A-Fa-f]{5})", request.path)
        if wanted is None:
            return web.Response(status=400, text="The hash prefix was not in a valid format")
        prefix = wanted[1].upper()
        lines = [f"{digest[5:]}:7" for digest in self._hashes if digest.startswith(prefix)]
        if request.headers.get("Add-Padding") == "true":
            lines += [f"{_sha1(prefix + str(number))[5:]}:0" for number in range(8)]
        return await _in_pieces(request, "\r\n".join(sorted(lines)).encode())


async def _in_pieces(request: web.Request, body: bytes) -> web.StreamResponse:
    # A real answer is too long for one packet; the pieces come apart, and lines are cut.
    answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await answer.prepare(request)
    for start in range(0, len(body), _PIECE):
        await answer.write(body[start : start + _PIECE])
        await asyncio.sleep(0.005)
    await answer.write_eof()
    return answer


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().upper()
