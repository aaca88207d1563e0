"""Pictures and films for the public pages: uploaded by masters, served to everybody (contract.md 3.8)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from handlers.rest import Access, Call, Router, raw
from services.platform.content import MasterRequired
from services.platform.uploads import UploadNotFound, UploadRefused, UploadTooLarge
from services.platform.views import UploadView

router = Router(tag="platform")

_CHUNK = 256 * 1024


@router.post(
    "/api/v1/platform/content/upload",
    answer=UploadView,
    access=Access.USER,
    errors=(MasterRequired, UploadRefused, UploadTooLarge),
    aliases=("/api/platform/content/upload",),
    takes_file=True,
)
async def upload(call: Call) -> web.Response:
    """Upload a picture (10 MB) or a film (50 MB) as the field `file` of a form."""
    uploads = call.context.services.platform.uploads
    await uploads.admit(call.actor)
    patience_s = call.context.request_timeout_s
    part = await _file(call.request, patience_s=patience_s)
    chunks = _chunks(part, patience_s=patience_s)
    view = await uploads.keep(call.actor, chunks, filename=part.filename or "", trace=call.trace)
    return raw(view.model_dump())


@router.get(
    "/platform/uploads/{name}",
    answer=str,
    access=Access.PUBLIC,
    errors=(UploadNotFound,),
    content_type="application/octet-stream",
)
async def show_upload(call: Call, name: str) -> web.StreamResponse:
    """Show an uploaded file, as what its content is."""
    path, media_type = call.context.services.platform.uploads.find(name)
    # Its name is never given to another file. That it is nothing else than its type, the header of every answer says.
    headers = {"Content-Type": media_type, "Cache-Control": "public, max-age=31536000, immutable"}
    return web.FileResponse(path, headers=headers)


async def _file(request: web.Request, *, patience_s: float) -> BodyPartReader:
    if request.content_type != "multipart/form-data":
        raise UploadRefused
    with _reading():
        async with asyncio.timeout(patience_s):
            part = await (await request.multipart()).next()
    if not isinstance(part, BodyPartReader) or part.name != "file":
        raise UploadRefused
    return part


async def _chunks(part: BodyPartReader, *, patience_s: float) -> AsyncIterator[bytes]:
    """Yield the file as it comes; whoever lets us wait for the next piece is let go."""
    while True:
        with _reading():
            async with asyncio.timeout(patience_s):
                chunk = await part.read_chunk(_CHUNK)
        if not chunk:
            return
        yield chunk


@contextmanager
def _reading() -> Iterator[None]:
    """Tell the sender what is wrong with a form that cannot be read, or does not come."""
    try:
        yield
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(reason="The file did not come in time") from error
    except (ValueError, RuntimeError, HttpProcessingError) as error:
        # aiohttp has no one error for a broken form.
        raise UploadRefused from error
