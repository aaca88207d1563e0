"""A small application with endpoints of its own, inside the real frame: router, middlewares and error table."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, cast
from uuid import UUID, uuid4

from aiohttp import ClientResponse, ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.errors import DomainError, ErrorKind, InvalidInput, RateLimited
from core.pagination import Page
from handlers.context import CLIENT_IP, CONTEXT, Context, RateRules
from handlers.envelope import Envelope, ListEnvelope, MessageEnvelope
from handlers.rest import Access, Call, PageQuery, Router, WireModel, serve
from models.tenants import Role
from providers.limiter import WindowRateLimiter
from server.middlewares import answer_errors, identify, locate, log_requests
from server.readiness import StoreReadiness
from services.auth.errors import CredentialsRefused
from services.identity import Principal, require_scope
from services.permissions import KeyScope
from services.registry import Services
from services.unit_of_work import UnitOfWorkFactory
from tests.support.spine import Ears, spine

Client = TestClient[web.Request, web.Application]

MAX_BODY_BYTES = 4096
USER_ID, TENANT_ID, OTHER_TENANT_ID = uuid4(), uuid4(), uuid4()

ENGINE: web.AppKey[AsyncEngine] = web.AppKey("engine", AsyncEngine)


class Thing(BaseModel):
    """What the endpoints answer."""

    id: UUID
    name: str
    price: Decimal


class Order(WireModel):
    """A body with every sort of rule."""

    name: str = Field(min_length=1, max_length=20)
    count: int = Field(default=1, ge=1)
    parts: list[int] = Field(default_factory=list)
    note: str | None = None


class Strict(BaseModel):
    """A body that forbids what it does not know."""

    model_config = ConfigDict(extra="forbid")

    name: str


class Note(WireModel):
    """A body that may be left out."""

    note: str | None = None


class Search(PageQuery):
    """A query with keys of its own beside the page."""

    q: str
    unread: bool = False


class Teapot(DomainError):
    """An error of a domain."""

    kind = ErrorKind.CONFLICT
    code = "TEAPOT"
    message = "I am a teapot"


class Broken(Exception):
    """Nobody expected this one."""


FAILURES: dict[str, BaseException] = {
    "teapot": Teapot("Short and stout", details={"handle": 1}),
    "fields": InvalidInput("No", details={"errors": [{"field": "body -> x", "message": "m", "type": "t"}], "more": 2}),
    "slow-down": RateLimited(retry_after_s=7),
    "unexpected": Broken("postgresql://app:secret@db/app"),
    "key": KeyError("secret"),
    "redirect": web.HTTPFound("/elsewhere"),
    "not-acceptable": web.HTTPNotAcceptable(text="secret"),
    "refused": ConnectionRefusedError("postgresql://app:secret@db/app"),
    "timeout": TimeoutError("secret"),
    **{kind.value: type("Refusal", (DomainError,), {"kind": kind, "code": kind.name})() for kind in ErrorKind},
}

# Counting calls is a service, of which the frame knows nothing (test_entitlements.py counts).
router = Router(tag="things", prefix="/things", counted=False)


@router.post("", answer=Envelope[Thing], access=Access.PUBLIC, status=201, aliases=("/old/things",), errors=(Teapot,))
async def create(call: Call, body: Order) -> web.Response:
    """Answer what was understood."""
    understood = f"{body.name}|{body.count}|{body.parts}|{body.note}"
    return call.ok(Thing(id=USER_ID, name=understood, price=Decimal(99)), status=201)


@router.post("/strict", answer=Envelope[Strict], access=Access.PUBLIC)
async def create_strict(call: Call, body: Strict) -> web.Response:
    """Answer the name."""
    return call.ok(body)


@router.post("/optional", answer=MessageEnvelope, access=Access.PUBLIC, body_required=False)
async def create_optional(call: Call, body: Note) -> web.Response:
    """Answer the note."""
    return call.message(str(body.note), data={"note": body.note})


@router.get("", answer=ListEnvelope[Thing], access=Access.PUBLIC)
async def show_all(call: Call, query: PageQuery) -> web.Response:
    """Answer a page that tells which one it is."""
    request = query.request()
    items = [Thing(id=USER_ID, name=f"{request.page}/{request.size}", price=Decimal("1.5"))]
    return call.page(Page(items=items, total=41, request=request))


@router.get("/empty", answer=ListEnvelope[Thing], access=Access.PUBLIC)
async def show_none(call: Call, query: PageQuery) -> web.Response:
    """Answer an empty page."""
    return call.page(Page(items=[], total=0, request=query.request()))


@router.get("/many", answer=ListEnvelope[Thing], access=Access.PUBLIC)
async def show_many(call: Call) -> web.Response:
    """Answer a list without pages."""
    return call.many([Thing(id=USER_ID, name="one", price=Decimal(1))])


@router.get("/search", answer=MessageEnvelope, access=Access.PUBLIC)
async def search(call: Call, query: Search) -> web.Response:
    """Answer what was asked."""
    return call.message(f"{query.q}|{query.unread}|{query.request().page}")


@router.get("/flat", answer=Envelope[Thing], access=Access.PUBLIC)
async def show_flat(call: Call) -> web.Response:
    """Answer with keys repeated at the top."""
    return call.ok(Thing(id=USER_ID, name="flat", price=Decimal(1)), flat=("id", "price"))


@router.get("/broken-off", answer=MessageEnvelope, access=Access.PUBLIC)
async def break_off(call: Call) -> web.StreamResponse:
    """Begin to answer, then fail."""
    response = web.StreamResponse()
    await response.prepare(call.request)
    await response.write(b"the first half")
    raise RuntimeError("in the middle")


@router.get("/by-id/{thing_id}", answer=Envelope[Thing], access=Access.PUBLIC)
async def show(call: Call, thing_id: UUID) -> web.Response:
    """Answer one thing."""
    return call.ok(Thing(id=thing_id, name="found", price=Decimal(1)))


@router.get("/by-name/{name}", answer=Envelope[Thing], access=Access.PUBLIC)
async def show_named(call: Call, name: str) -> web.Response:
    """Answer a name."""
    return call.ok(Thing(id=USER_ID, name=name, price=Decimal(1)))


@router.get("/mine", answer=MessageEnvelope, access=Access.USER)
async def show_mine(call: Call) -> web.Response:
    """Answer who asks."""
    return call.message(str(call.actor.user_id))


@router.get("/ours", answer=MessageEnvelope)
async def show_ours(call: Call) -> web.Response:
    """Answer for which tenant."""
    return call.message(str(call.tenant_id))


@router.get("/anybody", answer=MessageEnvelope, access=Access.PUBLIC)
async def show_anybody(call: Call) -> web.Response:
    """Ask for an actor where none is known."""
    return call.message(str(call.actor.user_id))


@router.get("/limited", answer=MessageEnvelope, access=Access.PUBLIC, rule="auth_per_ip")
async def show_limited(call: Call) -> web.Response:
    """Answer a few times."""
    return call.message("allowed")


@router.get("/client", answer=MessageEnvelope, access=Access.PUBLIC)
async def show_client(call: Call) -> web.Response:
    """Answer where the request came from."""
    data = {"ip": call.request[CLIENT_IP], "trace_ip": call.trace.ip, "request_id": call.trace.request_id}
    return call.message("you", data=data)


@router.get("/fail/{name}", answer=MessageEnvelope, access=Access.PUBLIC)
async def fail(call: Call, name: str) -> web.Response:
    """Fail as asked."""
    raise FAILURES[name]


@router.get("/sql/{statement}", answer=MessageEnvelope, access=Access.PUBLIC)
async def ask_database(call: Call, statement: str) -> web.Response:
    """Run a statement."""
    async with call.request.app[ENGINE].connect() as connection:
        await connection.execute(text(statement))
    return call.message("done")


class Doorman:
    """Knows four tokens: `member` owns a tenant, `helper` is a plain member of it, `stranger` owns another one.

    `nobody` speaks for a user only.
    """

    async def recognise(self, token: str, *, scope: KeyScope | None = None) -> Principal:
        if token not in ("member", "helper", "stranger", "nobody"):
            raise CredentialsRefused
        tenants = {"member": TENANT_ID, "helper": TENANT_ID, "stranger": OTHER_TENANT_ID}
        roles = {"member": Role.OWNER, "helper": Role.USER, "stranger": Role.OWNER}
        principal = Principal(
            user_id=USER_ID,
            session_id=uuid4(),
            tenant_id=tenants.get(token),
            role=roles.get(token),
            is_superuser=False,
        )
        require_scope(principal, scope)
        return principal

    def must_look(self, _: str) -> bool:
        return False


@asynccontextmanager
async def open_door(
    engine: AsyncEngine,
    *,
    rules: RateRules | None = None,
    trusted_proxies: Sequence[str] = (),
    routers: Sequence[Router] = (router,),
    services: object = None,
    units: UnitOfWorkFactory | None = None,
) -> AsyncIterator[Client]:
    """Serve the endpoints and yield a client of them."""
    app = web.Application(
        middlewares=[identify, locate(trusted_proxies), log_requests, answer_errors], client_max_size=MAX_BODY_BYTES
    )
    async with ClientSession() as http:
        app[ENGINE] = engine
        app[CONTEXT] = Context(
            uow=units or spine(engine, Ears()),
            # None of the endpoints above calls a service; a test of others brings what they call.
            services=cast(Services, services),
            recognition=Doorman(),
            limiter=WindowRateLimiter(""),
            rules=rules or RateRules(auth_per_ip="", sso_per_user="", webhooks_per_ip="", user_total=""),
            readiness=StoreReadiness({}),
            environment="test",
            version="0",
            public_url="http://test",
            origins=frozenset(),
            request_timeout_s=30,
            http=http,
        )
        for endpoint in (endpoint for router in routers for endpoint in router.endpoints):
            app.router.add_route(endpoint.method, endpoint.path, serve(endpoint))
        async with TestClient(TestServer(app)) as client:
            yield client


async def refusal(response: ClientResponse, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is the one error body and return it."""
    body: dict[str, Any] = await response.json()
    assert (response.status, body["error"]["code"]) == (status, code), body
    assert response.content_type == "application/json"
    assert response.headers["X-Request-ID"]
    errors = {"errors"} if status == 422 else set()
    assert set(body) == {"status", "data", "message", "detail", "error"} | errors
    assert (body["status"], body["data"]) == ("error", None)
    assert isinstance(body["detail"], str)
    assert body["detail"] == body["message"] == body["error"]["message"]
    assert set(body["error"]) == {"code", "message", "details"}
    assert isinstance(body["error"]["details"], dict)
    return body
