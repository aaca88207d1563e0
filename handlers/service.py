"""Service endpoints: who this is, whether it lives, whether it can work (contract.md 1.6)."""

from aiohttp import web
from pydantic import BaseModel

from handlers.rest import Access, Call, Router, raw

router = Router(tag="service")

NAME = "ERPMax Orchestrator"
# How long others may keep the keys, in seconds; a new key is to be shown this long before it signs.
_KEYS_KEPT_S = 300


class ServiceView(BaseModel):
    """The answer of the first ancestor's root."""

    service: str
    version: str
    status: str


class HealthView(BaseModel):
    """The process lives."""

    status: str
    environment: str
    version: str


class KeySetView(BaseModel):
    """A JSON Web Key Set."""

    keys: list[dict[str, str]]


class DetailedHealthView(HealthView):
    """The process and what it needs: `ok`, `not configured` or `error: …` for each."""

    checks: dict[str, str]


@router.get("/", answer=ServiceView, access=Access.PUBLIC)
async def show_service(call: Call) -> web.Response:
    """Say what this server is."""
    return raw({"service": NAME, "version": call.context.version, "status": "running"})


@router.get("/health", answer=HealthView, access=Access.PUBLIC)
async def show_health(call: Call) -> web.Response:
    """Say that the process lives; needs nothing else."""
    return raw(_health(call))


@router.get("/health/detailed", answer=DetailedHealthView, access=Access.PUBLIC)
async def show_detailed_health(call: Call) -> web.Response:
    """Look at everything the process needs; 503 when the database is away."""
    checks = await call.context.readiness.check()
    degraded = any(state.startswith("error") for state in checks.values())
    status = 503 if checks["database"] != "ok" else 200
    return raw({**_health(call), "status": "degraded" if degraded else "ok", "checks": checks}, status=status)


@router.get("/ready", answer=DetailedHealthView, access=Access.PUBLIC)
async def show_readiness(call: Call) -> web.Response:
    """Say whether this instance should be sent work; 503 while anything it needs is away."""
    checks = await call.context.readiness.check()
    ready = not any(state.startswith("error") for state in checks.values())
    body = {**_health(call), "status": "ready" if ready else "unavailable", "checks": checks}
    return raw(body, status=200 if ready else 503, headers={} if ready else {"Retry-After": "5"})


@router.get("/.well-known/jwks.json", answer=KeySetView, access=Access.PUBLIC)
async def show_keys(call: Call) -> web.Response:
    """Show the public keys that access tokens are verified with (RFC 7517); none while they are signed by a secret."""
    body = {"keys": call.context.services.auth.public_keys}
    return raw(body, headers={"Cache-Control": f"public, max-age={_KEYS_KEPT_S}"})


def _health(call: Call) -> dict[str, str]:
    return {"status": "healthy", "environment": call.context.environment, "version": call.context.version}
