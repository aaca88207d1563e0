"""The content of the platform's public pages (contract.md 3.8), in the bare forms of the second ancestor."""

from typing import Annotated, Any

from aiohttp import web
from pydantic import BeforeValidator, RootModel

from handlers.free_form import read_free_form
from handlers.rest import Access, Call, Router, WireModel, raw
from services.platform.content import MasterRequired
from services.platform.views import ContentView, ContentWrittenView, PublicContentView
from services.unit_of_work import PlatformScope

router = Router(tag="platform", prefix="/api/v1/platform")

_SCOPE = PlatformScope("the platform's content belongs to no tenant")


class ContentBody(WireModel):
    """What to put under the key."""

    content: Annotated[dict[str, Any], BeforeValidator(read_free_form)]


class ContentsAnswer(RootModel[dict[str, ContentView]]):
    """Everything by its key."""


@router.get("/content/public", answer=PublicContentView, access=Access.PUBLIC)
async def show_public_content(call: Call) -> web.Response:
    """Show what the public pages need."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.content.public(uow)
    return raw(view.model_dump())


@router.get("/content", answer=ContentsAnswer, access=Access.USER, errors=(MasterRequired,))
async def list_content(call: Call) -> web.Response:
    """Show everything to whoever may edit it."""
    async with call.uow(_SCOPE) as uow:
        found = await call.context.services.platform.content.list(uow, call.actor)
    return raw({key: view.model_dump() for key, view in found.items()})


@router.put("/content/{key}", answer=ContentWrittenView, access=Access.USER, errors=(MasterRequired,))
async def write_content(call: Call, key: str, body: ContentBody) -> web.Response:
    """Put content under a key, in the place of what was there."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.content.write(uow, call.actor, key=key, content=body.content)
    return raw(view.model_dump())
