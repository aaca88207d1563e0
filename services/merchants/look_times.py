"""When an invoice is looked at without being told: it depends on how often that was done and on what is still open."""

from datetime import datetime, timedelta
from typing import Final

from models.orders import OrderInvoice, OrderRefund

# How long after the one before each look comes: soon while the customer may be paying, which takes a while to be
# confirmed, then in an hour, then daily for a month.
_SOON: Final = timedelta(minutes=5)
_HOURLY: Final = timedelta(hours=1)
_DAILY: Final = timedelta(days=1)
_LOOKS: Final = 32


def look_after(invoice: OrderInvoice, *, unanswered: OrderRefund | None = None, now: datetime) -> datetime | None:
    """Tell when an invoice is to be looked at next; None when it has been looked at often enough.

    For as long as it has a refund that the provider has not answered, that is when whoever asks now must be done, or in
    an hour.
    """
    if unanswered is not None:
        asking_until = unanswered.asking_until
        return asking_until if asking_until is not None and asking_until > now else now + _HOURLY
    looks = invoice.looks or 0
    if looks >= _LOOKS:
        return None
    if looks == 0:
        return now + _SOON
    return now + (_HOURLY if looks == 1 else _DAILY)
