"""What providers are told to do: written with the decision, carried out until it is done."""

from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import Index, Numeric, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, TenantOwned, enum_column
from models.plans import BillingPeriod


class InstructionKind(StrEnum):
    """What a provider is told.

    * `cancel_now`, `cancel_later`: stop charging, at once or when the paid period ends.
    * `resume`: charge on, after a `cancel_later` that was taken back.
    * `reprice`: charge another price from `charge_from` on.
    * `collect`: try once more to collect a bill.
    * `withdraw`: close the page of a purchase that nobody has paid.
    """

    CANCEL_NOW = "cancel_now"
    CANCEL_LATER = "cancel_later"
    RESUME = "resume"
    REPRICE = "reprice"
    COLLECT = "collect"
    WITHDRAW = "withdraw"


class ProviderInstruction(Identified, TenantOwned, Base):
    """One instruction about a provider's subscription; those of one subscription are carried out in their order.

    Without the row a provider that is away at the wrong moment would go on charging somebody who has cancelled.
    `number` is the order of giving. `amount`, `currency`, `billing_period` and `charge_from` are the terms of a
    `reprice`, `invoice_ref` the bill of a `collect`. Of a `withdraw` the page's session stands in `subscription_ref`.
    """

    __tablename__ = "provider_instructions"
    __table_args__ = (
        Index("ix_provider_instructions_waiting", "next_attempt_at", postgresql_where=text("done_at IS NULL")),
        Index("ix_provider_instructions_subscription_ref", "provider", "subscription_ref", "number"),
    )

    provider: Mapped[str] = mapped_column(String(50))
    subscription_ref: Mapped[str] = mapped_column(String(255))
    number: Mapped[int]
    kind: Mapped[InstructionKind] = mapped_column(enum_column(InstructionKind, name="kind"))
    amount: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    currency: Mapped[str | None] = mapped_column(String(3))
    billing_period: Mapped[BillingPeriod | None] = mapped_column(enum_column(BillingPeriod, name="billing_period"))
    charge_from: Mapped[datetime | None]
    invoice_ref: Mapped[str | None] = mapped_column(String(255))
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # When the provider first refused what it must do in the end.
    refused_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]

    def claim(self, *, now: datetime, lease: timedelta) -> int:
        """Begin an attempt that nobody else makes before `lease` is over; returns its number."""
        self.attempts += 1
        self.next_attempt_at = now + lease
        return self.attempts
