"""Files that are sent while they are made."""

from collections.abc import AsyncIterator

from aiohttp import web

from handlers.rest import Call


async def send_file(call: Call, pieces: AsyncIterator[bytes], *, name: str, content_type: str) -> web.StreamResponse:
    """Send a file of this name piece by piece; nobody on the way may keep it."""
    response = web.StreamResponse(
        headers={
            "Content-Type": content_type,
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        }
    )
    await response.prepare(call.request)
    async for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response
