"""The web application: REST routes with CORS, the Socket.IO paths, and the documents that describe both."""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import aiohttp_cors
from aiohttp import web

from handlers import (
    accounts,
    api_keys,
    audit,
    auth,
    billing,
    documents,
    entitlements,
    events,
    hosted_documents,
    local_site,
    merchants,
    messengers,
    notifications,
    phone_codes,
    phones,
    platform_content,
    platform_uploads,
    provisioning,
    reconciliation,
    reports,
    sandbox,
    second_factor,
    service,
    sso,
    staff,
    subscriptions,
    super_admin,
    super_admin_plans,
    tenant_life,
    tenants,
    webhooks,
)
from handlers.context import CONTEXT, Context, RateRules
from handlers.openapi import build_openapi
from handlers.pages import mount_pages
from handlers.rest import Endpoint, raw, serve
from namespaces.asyncapi import build_asyncapi
from server.hygiene import protect
from server.metrics import LoopLag, mount_metrics
from server.middlewares import answer_errors, identify, locate, log_requests
from server.settings import Settings
from server.version import VERSION
from server.wiring import House

_ALWAYS = (
    service,
    audit,
    auth,
    second_factor,
    accounts,
    phones,
    phone_codes,
    messengers,
    tenants,
    tenant_life,
    api_keys,
    billing,
    documents,
    hosted_documents,
    entitlements,
    subscriptions,
    reports,
    webhooks,
    reconciliation,
    merchants,
    provisioning,
    sso,
    notifications,
    events,
    staff,
    super_admin,
    super_admin_plans,
    platform_content,
    platform_uploads,
)
_DEVELOPMENT_ONLY = (sandbox, local_site)


def endpoints(*, development: bool) -> list[Endpoint]:
    """Return every REST endpoint that a server in this environment has."""
    modules = (*_ALWAYS, *(_DEVELOPMENT_ONLY if development else ()))
    return [endpoint for module in modules for endpoint in module.router.endpoints]


def create_app(house: House) -> web.Application:
    """Build the application over a built house."""
    settings = house.settings
    app = web.Application(
        middlewares=[identify, locate(settings.trusted_proxies), log_requests, answer_errors],
        client_max_size=settings.max_body_bytes,
    )
    app[CONTEXT] = _context(house)
    served = endpoints(development=settings.development)
    _mount(app, served, settings.allowed_origins)
    _mount_documents(app, served, settings)
    mount_pages(app)
    lag = LoopLag()
    house.background.append(lag.run)
    mount_metrics(app, house, lag)
    app.on_response_prepare.append(protect(https=settings.public_base.startswith("https://")))
    house.sockets.attach(app)
    return app


def _context(house: House) -> Context:
    settings = house.settings
    return Context(
        uow=house.units,
        services=house.services,
        recognition=house.recognition,
        limiter=house.limiter,
        rules=RateRules(
            auth_per_ip=_rule(settings.rate_auth_per_ip),
            auth_per_account=_rule(settings.rate_auth_per_account),
            sso_per_user=_rule(settings.rate_sso_per_user),
            webhooks_per_ip=_rule(settings.rate_webhooks_per_ip),
            documents_per_ip=_rule(settings.rate_documents_per_ip),
            payments_per_tenant=_rule(settings.rate_payments_per_tenant),
            invites_per_tenant=_rule(settings.rate_invites_per_tenant),
            user_total=_rule(settings.rate_user_total),
            key_total=_rule(settings.rate_key_total),
            key_looks_per_ip=_rule(settings.rate_key_looks_per_ip),
            phone_codes_per_ip=_rule(settings.rate_phone_codes_per_ip),
            phone_checks_per_ip=_rule(settings.rate_phone_checks_per_ip),
        ),
        readiness=house.readiness,
        environment=settings.environment,
        version=VERSION,
        public_url=settings.public_base,
        origins=frozenset((*settings.allowed_origins, _origin(settings.public_base))),
        request_timeout_s=settings.request_timeout_s,
        http=house.http,
    )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _rule(text: str) -> str:
    return "" if text == "off" else text


def _mount(app: web.Application, served: Sequence[Endpoint], origins: Sequence[str]) -> None:
    # The Socket.IO paths are not given to aiohttp-cors: the Socket.IO server answers for them itself.
    options = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]
        allow_credentials=True,
        expose_headers=("Content-Range", "X-Content-Range", "X-Request-ID"),
        allow_headers="*",
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        max_age=600,
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(origins, options))
    for endpoint in served:
        cors.add(app.router.add_route(endpoint.method, endpoint.path, serve(endpoint)))


def _mount_documents(app: web.Application, served: Sequence[Endpoint], settings: Settings) -> None:
    documents = {
        "/openapi.json": build_openapi(served, version=VERSION, public_url=settings.public_base),
        "/asyncapi.json": build_asyncapi(version=VERSION, host=urlsplit(settings.public_base).netloc),
    }
    for path, document in documents.items():
        app.router.add_get(path, _document(document))


def _document(document: dict[str, object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def show(_: web.Request) -> web.Response:
        return raw(document)

    return show
