"""The REST door's frame: endpoints declared once, from which both serving and OpenAPI are made.

A handler is a coroutine `handler(call, ...)`. Its further parameters are filled by name and type: `body` and `query`
are pydantic models, any other name is a part of the path (`UUID` or `str`).
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Required, TypedDict, Unpack, get_type_hints
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

from core import json
from core.addresses import counted_address
from core.errors import DomainError, RateLimited
from core.pagination import Page, PageRequest
from handlers.context import CLIENT_IP, CONTEXT, REQUEST_ID, Context
from handlers.credentials import access_token, shows_credentials
from handlers.envelope import Pagination
from handlers.parsing import read_body, validate
from services.identity import NotAuthenticated, Principal, require_tenant
from services.permissions import KeyScope
from services.unit_of_work import RequestTrace, Scope, TenantScope, UnitOfWork

Handler = Callable[..., Awaitable[web.StreamResponse]]

# As much as sessions and audit entries keep of it.
_USER_AGENT_LENGTH = 255


class Access(StrEnum):
    """Who may knock; what they may do is the service's decision.

    Where it is `optional` nobody need be signed in, but a token or key that a header shows must be good. A cookie is
    not heard there, for a browser sends it along unasked.
    """

    PUBLIC = "public"
    OPTIONAL = "optional"
    USER = "user"
    MEMBER = "member"


class PageQuery(BaseModel):
    """Which page; numbers out of bounds are clamped (contract.md 1.2)."""

    page: int = 1
    size: int = 20

    def request(self) -> PageRequest:
        return PageRequest.clamped(self.page, self.size)


class WireModel(BaseModel):
    """A request body: unknown keys are ignored, as the released clients need."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One route with everything that serving and describing it needs."""

    method: str
    path: str
    handler: Handler
    tag: str
    access: Access
    answer: Any
    status: int
    errors: tuple[type[DomainError], ...]
    rule: str | None
    body: type[BaseModel] | None
    body_required: bool
    query: type[BaseModel] | None
    path_params: Mapping[str, type]
    alias_of: str | None = None
    content_type: str = "application/json"
    also: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    takes_file: bool = False
    scope: KeyScope | None = None
    counted: bool = False
    as_csv: bool = False

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.handler) or "").split("\n", 1)[0]


class RouteSpec(TypedDict, total=False):
    """What an endpoint may declare; see `Router.route`."""

    answer: Required[Any]
    access: Access
    status: int
    errors: tuple[type[DomainError], ...]
    aliases: tuple[str, ...]
    rule: str
    body_required: bool
    content_type: str
    also: Mapping[int, type[BaseModel]]
    takes_file: bool
    scope: KeyScope
    as_csv: bool


@dataclass(slots=True)
class Router:
    """Collects the endpoints of one noun.

    Calls of those that are for members count as the tenant's API calls, unless `counted` is false.
    """

    tag: str
    prefix: str = ""
    endpoints: list[Endpoint] = field(default_factory=list)
    counted: bool = True

    def route(
        self,
        method: str,
        path: str,
        *,
        answer: Any,
        access: Access = Access.MEMBER,
        status: int = 200,
        errors: tuple[type[DomainError], ...] = (),
        aliases: tuple[str, ...] = (),
        rule: str | None = None,
        body_required: bool = True,
        content_type: str = "application/json",
        also: Mapping[int, type[BaseModel]] | None = None,
        takes_file: bool = False,
        scope: KeyScope | None = None,
        as_csv: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Declare an endpoint.

        `answer` is the model of the body; `aliases` are further paths, whole, for released clients; `rule` names a
        field of `RateRules`, counted by address; `body_required=False` lets an absent body stand for an empty object;
        `also` names the models of further answers by their status, where one path serves two families of clients;
        `takes_file` describes a form with one field `file`, which the handler reads itself; `as_csv` says that the
        answer is also to be had as a file for spreadsheets; `scope` lets the API keys in that have it, which otherwise
        are refused.
        """

        def declare(handler: Handler) -> Handler:
            body, query, path_params = _parameters(handler)
            for place in (self.prefix + path, *aliases):
                self.endpoints.append(
                    Endpoint(
                        method=method,
                        path=place,
                        handler=handler,
                        tag=self.tag,
                        access=access,
                        answer=answer,
                        status=status,
                        errors=errors,
                        rule=rule,
                        body=body,
                        body_required=body_required,
                        query=query,
                        path_params=path_params,
                        alias_of=None if place == self.prefix + path else self.prefix + path,
                        content_type=content_type,
                        also=also or {},
                        takes_file=takes_file,
                        scope=scope,
                        as_csv=as_csv,
                        counted=self.counted and access is Access.MEMBER,
                    )
                )
            return handler

        return declare

    def get(self, path: str, **spec: Unpack[RouteSpec]) -> Callable[[Handler], Handler]:
        return self.route("GET", path, **spec)

    def post(self, path: str, **spec: Unpack[RouteSpec]) -> Callable[[Handler], Handler]:
        return self.route("POST", path, **spec)

    def put(self, path: str, **spec: Unpack[RouteSpec]) -> Callable[[Handler], Handler]:
        return self.route("PUT", path, **spec)

    def patch(self, path: str, **spec: Unpack[RouteSpec]) -> Callable[[Handler], Handler]:
        return self.route("PATCH", path, **spec)

    def delete(self, path: str, **spec: Unpack[RouteSpec]) -> Callable[[Handler], Handler]:
        return self.route("DELETE", path, **spec)


def _parameters(
    handler: Handler,
) -> tuple[type[BaseModel] | None, type[BaseModel] | None, dict[str, type]]:
    hints = get_type_hints(handler)
    names = list(inspect.signature(handler).parameters)[1:]
    path_params = {name: hints[name] for name in names if name not in ("body", "query")}
    return hints.get("body"), hints.get("query"), path_params


class Call:
    """One request on its way through the door."""

    def __init__(self, request: web.Request, actor: Principal | None) -> None:
        self.request = request
        self.context: Context = request.app[CONTEXT]
        self._actor = actor

    @property
    def actor(self) -> Principal:
        """The signed-in user or the API key that calls; raises NotAuthenticated on a public route without one."""
        if self._actor is None:
            raise NotAuthenticated
        return self._actor

    @property
    def caller(self) -> Principal | None:
        """Who calls, None if nobody is signed in; for routes on which nobody need be."""
        return self._actor

    @property
    def tenant_id(self) -> UUID:
        """The tenant of the caller's token; raises NoTenantInToken."""
        return require_tenant(self.actor)

    @property
    def trace(self) -> RequestTrace:
        return RequestTrace(
            source="rest",
            request_id=self.request[REQUEST_ID],
            ip=self.request[CLIENT_IP],
            user_agent=user_agent(self.request),
            impersonator_id=self._actor.impersonator_id if self._actor else None,
            by_key=self._actor is not None and self._actor.key_id is not None,
        )

    async def limit(self, rule: str, key: str) -> None:
        """Count one hit of the rule that is named so in `RateRules`; raises RateLimited."""
        await _count(self.context, rule, key)

    async def refuse_over(self, rule: str, key: str) -> None:
        """Refuse, counting nothing, where the next hit of a rule would be too many; raises RateLimited."""
        limit = getattr(self.context.rules, rule)
        wait_s = await self.context.limiter.wait_s(limit, rule, key) if limit else None
        if wait_s is not None:
            raise RateLimited(retry_after_s=wait_s)

    async def forget(self, rule: str, key: str) -> None:
        """Take back every hit of a rule under a key."""
        limit = getattr(self.context.rules, rule)
        if limit:
            await self.context.limiter.clear(limit, rule, key)

    def uow(self, scope: Scope) -> AbstractAsyncContextManager[UnitOfWork]:
        """Open a unit of work whose audit entries name this request."""
        return self.context.uow(scope, trace=self.trace)

    def tenant_uow(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Open a unit of work over the rows of the caller's tenant."""
        return self.uow(TenantScope(self.tenant_id))

    @property
    def wants_raw(self) -> bool:
        """Whether the client asked for the bare thing instead of the envelope (contract.md 1.7)."""
        return self.request.headers.get("X-Response-Format", "").lower() == "raw" or (
            self.request.query.get("raw") == "1"
        )

    def ok(self, data: BaseModel, *, status: int = 200, flat: tuple[str, ...] = ()) -> web.Response:
        """Answer one thing; `flat` names keys that are repeated at the top for clients that read no envelope."""
        plain = data.model_dump()
        if self.wants_raw:
            return raw(plain, status=status)
        body = {"status": "success", "data": plain, "error": None, **{key: plain[key] for key in flat}}
        return raw(body, status=status)

    def many(self, items: list[Any]) -> web.Response:
        """Answer a whole list without pages."""
        return self._list([item.model_dump() for item in items], None)

    def page(self, page: Page[Any]) -> web.Response:
        """Answer one page of a list."""
        return self._list([item.model_dump() for item in page.items], Pagination.of(page).model_dump())

    def message(self, text: str, *, status: int = 200, data: Mapping[str, Any] | None = None) -> web.Response:
        """Answer that a deed is done."""
        body: dict[str, Any] = {"status": "success", "message": text}
        if data is not None:
            body["data"] = dict(data)
        return raw(body, status=status)

    def _list(self, items: list[dict[str, Any]], pagination: dict[str, Any] | None) -> web.Response:
        if self.wants_raw:
            return raw(items)
        return raw({"status": "success", "data": items, "error": None, "pagination": pagination})


def user_agent(request: web.Request) -> str | None:
    """Return what the client says it is, short enough to be kept."""
    agent = request.headers.get("User-Agent")
    # A header may carry bytes that are no text, which the database would refuse.
    return agent.encode("utf-8", "replace").decode()[:_USER_AGENT_LENGTH] if agent else None


def raw(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer bare JSON."""
    return web.Response(
        body=json.dumps(body), status=status, content_type="application/json", headers=dict(headers or {})
    )


def serve(endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Turn an endpoint into an aiohttp handler: limit, authenticate, parse, call."""
    params = _path_model(endpoint)

    async def handle(request: web.Request) -> web.StreamResponse:
        await _limit(request, endpoint)
        actor = await _authenticate(request, endpoint) if _must_be_known(request, endpoint) else None
        arguments: dict[str, Any] = {}
        if params is not None:
            parsed = validate(TypeAdapter(params), dict(request.match_info), "path")
            arguments.update({name: getattr(parsed, name) for name in endpoint.path_params})
        if endpoint.query is not None:
            arguments["query"] = validate(TypeAdapter(endpoint.query), dict(request.query), "query")
        if endpoint.body is not None:
            arguments["body"] = await read_body(request, endpoint.body, required=endpoint.body_required)
        return await endpoint.handler(Call(request, actor), **arguments)

    return handle


def _path_model(endpoint: Endpoint) -> type[BaseModel] | None:
    if not endpoint.path_params:
        return None
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in endpoint.path_params.items()}
    return create_model("Path", **fields)


async def _limit(request: web.Request, endpoint: Endpoint) -> None:
    if endpoint.rule:
        await _count(request.app[CONTEXT], endpoint.rule, counted_address(request[CLIENT_IP]))


async def _count(context: Context, name: str, key: str) -> None:
    rule = getattr(context.rules, name)
    wait_s = await context.limiter.hit(rule, name, key) if rule else None
    if wait_s is not None:
        raise RateLimited(retry_after_s=wait_s)


def _must_be_known(request: web.Request, endpoint: Endpoint) -> bool:
    if endpoint.access is Access.OPTIONAL:
        return shows_credentials(request)
    return endpoint.access is not Access.PUBLIC


async def _authenticate(request: web.Request, endpoint: Endpoint) -> Principal:
    context = request.app[CONTEXT]
    token = access_token(request, origins=context.origins)
    if context.recognition.must_look(token):
        # Whoever makes keys up would otherwise have the database asked as often as they like.
        await _count(context, "key_looks_per_ip", counted_address(request[CLIENT_IP]))
    actor = await context.recognition.recognise(token, scope=endpoint.scope)
    if endpoint.access is Access.MEMBER:
        require_tenant(actor)
    await _count(context, "user_total" if actor.key_id is None else "key_total", str(actor.user_id))
    if endpoint.counted:
        await context.services.entitlements.calls.count(require_tenant(actor))
    return actor
