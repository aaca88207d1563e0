"""Comparing payment providers with what we hold, on demand (issue 5, part 9): for superusers."""

from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import StringConstraints

from handlers.envelope import Envelope, ListEnvelope
from handlers.rest import Access, Call, PageQuery, Router, WireModel
from services.billing.errors import NothingToReconcile, ReconciliationNotFound, ReconciliationRunning
from services.billing.reconciling import ReconciliationView
from services.identity import SuperuserRequired
from services.unit_of_work import PlatformScope

router = Router(tag="billing", prefix="/api/v1/billing", counted=False)

_SCOPE = PlatformScope("a provider is compared with what every tenant has bought")


class ReconcileBody(WireModel):
    """Which payment provider to compare."""

    provider: Annotated[str, StringConstraints(min_length=1, max_length=50)]


@router.post(
    "/reconcile",
    answer=Envelope[ReconciliationView],
    access=Access.USER,
    errors=(SuperuserRequired, NothingToReconcile, ReconciliationRunning),
)
async def reconcile(call: Call, body: ReconcileBody) -> web.Response:
    """Begin to compare everything that a payment provider holds with what we hold; for superusers."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.reconciling.request(uow, call.actor, provider=body.provider)
    return call.ok(view)


@router.get(
    "/reconciliations",
    answer=ListEnvelope[ReconciliationView],
    access=Access.USER,
    errors=(SuperuserRequired,),
)
async def list_reconciliations(call: Call, query: PageQuery) -> web.Response:
    """Show such comparisons and how far they are, newest first; for superusers."""
    async with call.uow(_SCOPE) as uow:
        page = await call.context.services.reconciling.list(uow, call.actor, query.request())
    return call.page(page)


@router.get(
    "/reconciliations/{reconciliation_id}",
    answer=Envelope[ReconciliationView],
    access=Access.USER,
    errors=(SuperuserRequired, ReconciliationNotFound),
)
async def show_reconciliation(call: Call, reconciliation_id: UUID) -> web.Response:
    """Show how far a comparison is and what it has found; for superusers."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.reconciling.show(uow, call.actor, row_id=reconciliation_id)
    return call.ok(view)
