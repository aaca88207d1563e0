"""Merchants' accounts in reconciliation: which of them concern us, and opening one."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, exists
from sqlalchemy.orm import InstrumentedAttribute

from core.errors import Unavailable
from models.merchants import PaymentIntegration
from models.orders import OrderInvoice
from providers.payments import PaymentProvider
from services.billing.inbox import MerchantEvents
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

INVOICES_OF: Final = timedelta(days=90)
"""How old an invoice of a merchant's may be that is still compared."""

_SCOPE: Final = PlatformScope("the accounts of every merchant are compared")


def sells(
    integration_id: InstrumentedAttribute[UUID] | InstrumentedAttribute[UUID | None], now: datetime
) -> ColumnElement[bool]:
    """Select the accounts at which customers were sent to pay of late; nothing that happens at others concerns us."""
    return exists().where(OrderInvoice.integration_id == integration_id, OrderInvoice.created_at > now - INVOICES_OF)


async def opened_account(
    units: UnitOfWorkFactory, merchants: MerchantEvents | None, integration_id: UUID
) -> PaymentProvider:
    """Open a merchant's account; raises Unavailable where it is gone, or its keys cannot be read now."""
    async with units(_SCOPE) as uow:
        integration = await uow.session.get(PaymentIntegration, integration_id)
    if integration is None or merchants is None:
        raise Unavailable
    return merchants.opened(integration)
