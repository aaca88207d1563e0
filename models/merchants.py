"""Merchants: tenants whose customers pay them at a payment provider of their own (contract.md 4.6)."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Index, Numeric, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, JsonObject, OutlivesTenant, TenantOwned, Timestamped


class PaymentIntegration(Identified, TenantOwned, Timestamped, Base):
    """A merchant's account at a provider; its id is in the address of its webhook.

    `sealed` holds the keys, encrypted by the key that `key_id` names and bound to the tenant, the provider and this row
    (services/merchants/vault.py). `account` is what may be shown of the account, and `account_since` when it last
    became another one: nobody is sent any more to what was opened before. Of several the one chosen last is used.
    """

    __tablename__ = "tenants_payment_integrations"
    __table_args__ = (UniqueConstraint("tenant_id", "provider"), Index(None, "key_id"))

    provider: Mapped[str] = mapped_column(String(50))
    sealed: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(16))
    hint: Mapped[str] = mapped_column(String(16))
    account: Mapped[JsonObject] = mapped_column(default=dict)
    return_url: Mapped[str | None] = mapped_column(Text)
    account_since: Mapped[datetime]
    chosen_at: Mapped[datetime]


class CommissionLog(Identified, OutlivesTenant, Base):
    """One step of our commission on an order: what it adds, or takes back where money went back to the customer.

    `kept_amount` is what the merchant had kept of the price by then. The sum of an order's steps is our commission on
    that, to the currency's last decimal. `order_id` names an order, which the step may outlive.
    """

    __tablename__ = "commission_logs"
    __table_args__ = (
        UniqueConstraint("order_id", "number"),
        Index("ix_commission_logs_tenant_id", "tenant_id", "created_at"),
    )

    order_id: Mapped[UUID]
    number: Mapped[int]
    commission_percent: Mapped[Decimal] = mapped_column(Numeric(7, 4))
    commission_amount: Mapped[Decimal] = mapped_column(Numeric())
    kept_amount: Mapped[Decimal] = mapped_column(Numeric())
    currency: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
