"""Whom a tenant's papers shall name: told by its owner or an admin, and copied into each paper when it is issued."""

from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import select

from core.errors import InvalidInput
from core.i18n import TEXTS
from models.documents import BillingDetails
from models.tenants import Tenant
from services.documents.views import BillingDetailsView
from services.identity import Principal, require_oneself, require_permission, require_tenant
from services.permissions import Permission
from services.unit_of_work import UnitOfWork


class LanguageUnknown(InvalidInput):
    """Papers are not written in this language."""

    message = "Documents are not written in this language"

    def __init__(self) -> None:
        problem = {"field": "body -> language", "message": self.message, "type": "value_error"}
        super().__init__(details={"errors": [problem]})


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailsInput:
    """What the papers shall say from now on; None is taken from the tenant and its owner."""

    name: str | None
    address: str | None
    tax_id: str | None
    country: str | None
    email: str | None
    locale: str | None


async def show_details(uow: UnitOfWork, actor: Principal) -> BillingDetailsView:
    """Show whom the papers name; for owners and admins."""
    tenant_id = require_tenant(actor)
    require_permission(actor.role, Permission.INVOICES_READ)
    found = await uow.session.scalar(select(BillingDetails).where(BillingDetails.tenant_id == tenant_id))
    return BillingDetailsView.of(found)


async def change_details(uow: UnitOfWork, actor: Principal, given: DetailsInput) -> BillingDetailsView:
    """Replace all of it; for owners and admins in person. What was issued before stays as it is.

    Raises LanguageUnknown, and Impersonated, for whoever changes the address gets every paper from then on.
    """
    tenant_id = require_tenant(actor)
    require_permission(actor.role, Permission.TENANT_CHANGE)
    require_oneself(actor)
    if given.locale is not None and given.locale not in TEXTS.locales:
        raise LanguageUnknown
    # Two who write for the first time at once come one after the other.
    await uow.session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True))
    details = await uow.session.scalar(select(BillingDetails).where(BillingDetails.tenant_id == tenant_id))
    if details is None:
        details = BillingDetails(id=uuid4(), tenant_id=tenant_id)
        uow.session.add(details)
    details.name, details.address, details.tax_id = given.name, given.address, given.tax_id
    details.country, details.email, details.locale = given.country, given.email, given.locale
    details.updated_at = uow.now
    uow.audit(
        "billing_details.changed",
        actor_id=actor.user_id,
        tenant_id=tenant_id,
        subject=("tenant", tenant_id),
        details={"country": given.country, "language": given.locale},
    )
    return BillingDetailsView.of(details)
