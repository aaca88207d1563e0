"""Billing: the names of all its tables, which have files of their own only to keep each short (contract.md 4.1)."""

from models.checkouts import CheckoutKind, CheckoutSession
from models.credits import Credit, CreditReason
from models.instructions import InstructionKind, ProviderInstruction
from models.invoices import Invoice, InvoiceStatus
from models.payment_progress import CheckoutState
from models.payments import PaymentEvent, PaymentEventType
from models.plans import BillingPeriod, PastDuePolicy, Plan, PlanPrice
from models.subscriptions import Subscription, SubscriptionStatus

__all__ = [
    "BillingPeriod",
    "CheckoutKind",
    "CheckoutSession",
    "CheckoutState",
    "Credit",
    "CreditReason",
    "InstructionKind",
    "Invoice",
    "InvoiceStatus",
    "PastDuePolicy",
    "PaymentEvent",
    "PaymentEventType",
    "Plan",
    "PlanPrice",
    "ProviderInstruction",
    "Subscription",
    "SubscriptionStatus",
]
