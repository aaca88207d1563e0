"""The shapes of Stripe's objects in API version 2026-10-28.endive, built from scratch.

`tests/providers/payments/test_stripe_fake.py` holds each shape against the types of the official SDK. Bills are in
stripe_invoices.py.
"""

import calendar
import secrets
import string
from datetime import UTC, datetime

from tests.fakes import server

API_VERSION = "2026-10-28.endive"

Obj = server.Obj

_ALPHABET = string.ascii_letters + string.digits
NO_TAX = {"disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None}


def new_id(prefix: str, length: int = 24) -> str:
    return prefix + "_" + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def add_interval(start: int, interval: str) -> int:
    """Move unix seconds one month or year on, to the last day of the month where the day does not exist."""
    moment = datetime.fromtimestamp(start, UTC)
    months = moment.month - 1 + (12 if interval == "year" else 1)
    year, month = moment.year + months // 12, months % 12 + 1
    day = min(moment.day, calendar.monthrange(year, month)[1])
    return int(moment.replace(year=year, month=month, day=day).timestamp())


def listing(rows: list[Obj], url: str) -> Obj:
    return {"object": "list", "data": rows, "has_more": False, "total_count": len(rows), "url": url}


def session(params: Obj, *, now: int, line: Obj, live: bool) -> Obj:
    session_id = new_id("cs_live" if live else "cs_test", 58)
    return {
        "id": session_id,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "amount_subtotal": line["unit_amount"] * line["quantity"],
        "amount_total": line["unit_amount"] * line["quantity"],
        "automatic_tax": NO_TAX,
        "billing_address_collection": None,
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "created": now,
        "currency": line["currency"],
        "custom_fields": [],
        "custom_text": {"after_submit": None, "shipping_address": None, "submit": None},
        "customer": params.get("customer"),
        "customer_details": None,
        "customer_email": params.get("customer_email"),
        "discounts": [],
        "expires_at": now + 86_400,
        "invoice": None,
        "livemode": live,
        "locale": None,
        "metadata": params.get("metadata", {}),
        "mode": params["mode"],
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "always",
        "payment_method_types": ["card", "sepa_debit"],
        "payment_status": "unpaid",
        "shipping_options": [],
        "status": "open",
        "subscription": None,
        "success_url": params["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"https://checkout.stripe.com/c/pay/{session_id}#fid{secrets.token_hex(160)}",
    }


def customer(email: str | None, *, now: int, live: bool) -> Obj:
    return {
        "id": new_id("cus", 14),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": now,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": email,
        "livemode": live,
        "metadata": {},
        "name": None,
        "phone": None,
        "shipping": None,
        "tax_exempt": "none",
    }


def price(line: Obj, *, now: int, live: bool) -> Obj:
    return {
        "id": new_id("price"),
        "object": "price",
        "active": False,
        "billing_scheme": "per_unit",
        "created": now,
        "currency": line["currency"],
        "custom_unit_amount": None,
        "livemode": live,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": new_id("prod", 14),
        "recurring": {
            "interval": line["interval"],
            "interval_count": 1,
            "meter": None,
            "trial_period_days": None,
            "usage_type": "licensed",
        },
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring",
        "unit_amount": line["unit_amount"],
        "unit_amount_decimal": str(line["unit_amount"]),
    }


def plan_of(of_price: Obj) -> Obj:
    return {
        "id": of_price["id"],
        "object": "plan",
        "active": of_price["active"],
        "amount": of_price["unit_amount"],
        "billing_scheme": "per_unit",
        "created": of_price["created"],
        "currency": of_price["currency"],
        "interval": of_price["recurring"]["interval"],
        "interval_count": 1,
        "livemode": of_price["livemode"],
        "metadata": {},
        "nickname": None,
        "product": of_price["product"],
        "usage_type": "licensed",
    }


def subscription(of_price: Obj, customer_id: str, metadata: Obj, *, now: int, status: str) -> Obj:
    subscription_id = new_id("sub")
    item: Obj = {
        "id": new_id("si", 14),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": now,
        "current_period_end": add_interval(now, of_price["recurring"]["interval"]),
        "current_period_start": now,
        "discounts": [],
        "metadata": {},
        "plan": plan_of(of_price),
        "price": of_price,
        "quantity": 1,
        "subscription": subscription_id,
        "tax_rates": [],
    }
    return {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "automatic_tax": NO_TAX,
        "billing_cycle_anchor": now,
        "billing_mode": {"flexible": None, "type": "classic"},
        "billing_schedules": [],
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": of_price["currency"],
        "customer": customer_id,
        "default_payment_method": new_id("pm"),
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": listing([item], f"/v1/subscription_items?subscription={subscription_id}"),
        "latest_invoice": None,
        "livemode": of_price["livemode"],
        "metadata": metadata,
        "pause_collection": None,
        "schedule": None,
        "start_date": now,
        "status": status,
        "test_clock": None,
        "trial_end": None,
        "trial_start": None,
    }


def payment_intent(amount: int, of: Obj, metadata: Obj, *, now: int) -> Obj:
    """Build the payment of an invoice or a session before its money has come."""
    return {
        "id": new_id("pi"),
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_received": 0,
        "capture_method": "automatic",
        "confirmation_method": "automatic",
        "created": now,
        "currency": of["currency"],
        "customer": of["customer"],
        "latest_charge": None,
        "livemode": of["livemode"],
        "metadata": metadata,
        "payment_method_types": ["card"],
        "status": "processing",
    }


def refund(of_charge: Obj, amount: int, metadata: Obj, *, now: int) -> Obj:
    return {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "charge": of_charge["id"],
        "created": now,
        "currency": of_charge["currency"],
        "metadata": metadata,
        "payment_intent": of_charge["payment_intent"],
        "reason": None,
        "status": "succeeded",
    }


def charge(of: Obj, *, now: int) -> Obj:
    return {
        "id": new_id("ch"),
        "object": "charge",
        "amount": of["amount"],
        "amount_captured": of["amount"],
        "amount_refunded": 0,
        "balance_transaction": new_id("txn"),
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "captured": True,
        "created": now,
        "currency": of["currency"],
        "customer": of["customer"],
        "description": "Subscription creation",
        "disputed": False,
        "livemode": of["livemode"],
        "metadata": of["metadata"],
        "paid": True,
        "payment_intent": of["id"],
        "refunded": False,
        "status": "succeeded",
    }


def balance_transaction(of_charge: Obj, *, fee: int, now: int) -> Obj:
    """Build the entry of a charge in the account's books: what came of it, and what Stripe kept."""
    detail = {
        "amount": fee,
        "application": None,
        "currency": of_charge["currency"],
        "description": "Stripe processing fees",
        "type": "stripe_fee",
    }
    return {
        "id": new_id("txn"),
        "object": "balance_transaction",
        "amount": of_charge["amount"],
        "available_on": now + 172_800,
        "balance_type": "payments",
        "created": now,
        "currency": of_charge["currency"],
        "description": None,
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [detail],
        "net": of_charge["amount"] - fee,
        "reporting_category": "charge",
        "source": of_charge["id"],
        "status": "pending",
        "type": "charge",
    }


def dispute(of_charge: Obj, *, now: int, status: str, reason: str) -> Obj:
    return {
        "id": new_id("du"),
        "object": "dispute",
        "amount": of_charge["amount"],
        "balance_transactions": [],
        "charge": of_charge["id"],
        "created": now,
        "currency": of_charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {
            "due_by": now + 604_800,
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": status.startswith("warning_"),
        "livemode": of_charge["livemode"],
        "metadata": {},
        "payment_intent": of_charge["payment_intent"],
        "reason": reason,
        "status": status,
    }


def event(kind: str, subject: Obj, *, now: int, previous: Obj | None = None) -> Obj:
    data: Obj = {"object": subject}
    if previous is not None:
        data["previous_attributes"] = previous
    return {
        "id": new_id("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": now,
        "data": data,
        # Refunds are the one kind of object that does not say.
        "livemode": subject.get("livemode", False),
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }
