"""Whom papers name and who is told of them: the issuer, the buyer, and the people behind a tenant."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from sqlalchemy import select

from core.i18n import DEFAULT_LOCALE, TEXTS
from models.base import JsonObject
from models.documents import BillingDetails
from models.tenants import Membership, Role, Tenant
from models.users import User
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who sells: what the papers say, the series they are numbered in, and the tax within the prices, in percent."""

    name: str
    address: str
    tax_id: str
    series: str
    tax_rate: Decimal

    @property
    def printed(self) -> JsonObject:
        return _printed(name=self.name, address=self.address, tax_id=self.tax_id, country=None, email=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """An owner or an admin of a tenant."""

    user_id: UUID
    email: str | None
    locale: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressee:
    """Whom a tenant's papers name, in which language, and who is told of them."""

    printed: JsonObject
    locale: str
    email: str | None
    managers: Sequence[Manager]

    @property
    def recipients(self) -> list[tuple[str, str]]:
        """Whom a letter goes to, with their languages: the address that was given for it, else every owner."""
        if self.email is not None:
            return [(self.email, self.locale)]
        owners = [person for person in self.managers if person.role is Role.OWNER]
        return [(person.email, person.locale) for person in owners if person.email is not None]


async def addressee_of(uow: UnitOfWork, tenant_id: UUID) -> Addressee:
    """Return whom a tenant's papers name as things stand; what was not given is taken from the tenant's people."""
    name = (await uow.session.scalars(select(Tenant.name).where(Tenant.id == tenant_id))).one()
    details = await uow.session.scalar(select(BillingDetails).where(BillingDetails.tenant_id == tenant_id))
    rows = await uow.session.execute(
        select(User.id, User.email, User.locale, Membership.role)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.tenant_id == tenant_id, Membership.role.in_((Role.OWNER, Role.ADMIN)), User.is_active)
        .order_by(Membership.joined_at, User.id)
    )
    managers = [Manager(user_id=row.id, email=row.email, locale=row.locale, role=row.role) for row in rows]
    given = details or BillingDetails()
    owners = (person.locale for person in managers if person.role is Role.OWNER)
    locale = given.locale or next(owners, DEFAULT_LOCALE)
    return Addressee(
        printed=_printed(
            name=given.name or name,
            address=given.address,
            tax_id=given.tax_id,
            country=given.country,
            email=given.email,
        ),
        locale=locale if locale in TEXTS.locales else DEFAULT_LOCALE,
        email=given.email,
        managers=managers,
    )


def _printed(
    *, name: str, address: str | None, tax_id: str | None, country: str | None, email: str | None
) -> JsonObject:
    return {"name": name, "address": address, "tax_id": tax_id, "country": country, "email": email}
