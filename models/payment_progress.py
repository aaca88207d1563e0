"""How a payment that was begun comes on, whatever it is for (providers.md 1.2)."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy.orm import Mapped


class CheckoutState(StrEnum):
    """Where a purchase's payment stands (providers.md 1.2).

    `paid` is final, and money that comes late still makes it paid; of all others the provider's newest word counts.
    """

    PENDING = "pending"
    APPROVED = "approved"
    PROCESSING = "processing"
    PAID = "paid"
    UNDERPAID = "underpaid"
    EXPIRED = "expired"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Of two words of one moment the one further down counts, whichever was heard first.
_ORDER = (
    CheckoutState.PENDING,
    CheckoutState.APPROVED,
    CheckoutState.PROCESSING,
    CheckoutState.EXPIRED,
    CheckoutState.CANCELLED,
    CheckoutState.UNDERPAID,
    CheckoutState.FAILED,
    CheckoutState.PAID,
)


class PaymentProgress:
    """What is known of a payment; the columns are those of the class that is mixed with.

    `received` is what has come for certain or not and `overpaid` how much of it nobody asked for. `facts_until` is the
    provider's time of the newest word about it, `completed_at` when the money came.
    """

    if TYPE_CHECKING:
        state: Mapped[CheckoutState]
        received: Mapped[Decimal]
        overpaid: Mapped[Decimal]
        is_late: Mapped[bool]
        facts_until: Mapped[datetime | None]
        completed_at: Mapped[datetime | None]

    def mark_paid(self, at: datetime) -> bool:
        """Note that the money is there since `at` (the provider's clock); returns False when it was known."""
        # A payment is told by the checkout and by its invoice, in any order; the earlier moment is kept.
        self.completed_at = at if self.completed_at is None else min(at, self.completed_at)
        if self.state is CheckoutState.PAID:
            return False
        # Nothing that is told from now on, or was told before, counts beside it.
        self.state, self.facts_until = CheckoutState.PAID, None
        return True

    def tell(self, state: CheckoutState, *, at: datetime | None) -> bool:
        """Take in a word other than `paid`; returns whether it changed the state.

        `at` is the provider's time, None for what we have seen ourselves, which any word of the provider outdoes.
        """
        if self.state is CheckoutState.PAID or not self._is_news(state, at):
            return False
        before, self.state = self.state, state
        self.facts_until = at
        return self.state is not before

    def measure(self, *, received: Decimal, overpaid: Decimal, is_late: bool) -> None:
        """Note what has come so far: the most that was ever told, for money that came does not come less."""
        self.received, self.overpaid = max(self.received, received), max(self.overpaid, overpaid)
        self.is_late = self.is_late or is_late

    def _is_news(self, state: CheckoutState, at: datetime | None) -> bool:
        if self.facts_until is None or at is None:
            return self.facts_until is None
        return (at, _ORDER.index(state)) >= (self.facts_until, _ORDER.index(self.state))
