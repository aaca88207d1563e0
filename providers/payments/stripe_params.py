"""What Stripe is asked for: the parameters of its checkout sessions."""

from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal

from providers.payments.contract import CheckoutRequest, InvoiceRequest, Terms
from providers.payments.errors import ProviderRejected
from providers.payments.facts import BillingPeriod
from providers.payments.orders import order_of_invoice, tags_as_metadata
from providers.payments.stripe_money import AmountNotPayable, to_stripe

if TYPE_CHECKING:
    # The SDK loads its 1,500 parameter classes on demand; at run time none of them is needed.
    from stripe.params import SubscriptionUpdateParams
    from stripe.params.checkout import SessionCreateParams

_INTERVALS: Final[dict[BillingPeriod, Literal["month", "year"]]] = {"monthly": "month", "yearly": "year"}


def minor_units(amount: Decimal, currency: str) -> int:
    """Write an amount in Stripe's minor units; raises ProviderRejected for one that it cannot charge."""
    try:
        return to_stripe(amount, currency)
    except AmountNotPayable as unpayable:
        raise ProviderRejected(str(unpayable), details={"reason": "amount_not_payable"}) from unpayable


def invoice_params(request: InvoiceRequest) -> "SessionCreateParams":
    """Ask for one payment."""
    # On the session for its own events, on the payment because its charges, and so refunds, carry a copy of that.
    metadata = tags_as_metadata(order_of_invoice(request).tags)
    params: SessionCreateParams = {
        "mode": "payment",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": request.currency.lower(),
                    "unit_amount": minor_units(request.amount, request.currency),
                    "product_data": {"name": request.description},
                },
            }
        ],
        "client_reference_id": str(request.invoice_id),
        "metadata": metadata,
        "payment_intent_data": {"metadata": metadata},
        "success_url": request.success_url,
        "cancel_url": request.cancel_url,
    }
    if request.customer_email is not None:
        params["customer_email"] = request.customer_email
    return params


def checkout_params(request: CheckoutRequest) -> "SessionCreateParams":
    """Sell a plan as a subscription, or a change of one that is paid once."""
    # On the session for the checkout's own events; on what it makes because invoices and charges, and so every
    # renewal and refund, carry a copy of that and never of the session's (contract.md 4.4).
    metadata = {
        "checkout_id": str(request.checkout_id),
        "tenant_id": str(request.tenant_id),
        "plan_id": str(request.plan_id),
        "billing_period": request.billing_period,
    }
    params: SessionCreateParams = {
        "mode": "subscription" if request.renews else "payment",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": request.currency.lower(),
                    "unit_amount": minor_units(request.amount, request.currency),
                    "product_data": {"name": request.plan_name},
                },
            }
        ],
        "client_reference_id": str(request.checkout_id),
        "metadata": metadata,
        "success_url": request.success_url,
        "cancel_url": request.cancel_url,
    }
    if request.renews:
        params["line_items"][0]["price_data"]["recurring"] = {"interval": _INTERVALS[request.billing_period]}
        params["subscription_data"] = {"metadata": metadata}
    else:
        params["payment_intent_data"] = {"metadata": metadata}
    # Stripe takes one or the other: a known customer already has an e-mail address.
    if request.customer_ref is not None:
        params["customer"] = request.customer_ref
    elif request.customer_email is not None:
        params["customer_email"] = request.customer_email
    return params


def reprice_params(terms: Terms, *, item_id: str, product: str, interval: str) -> "SubscriptionUpdateParams":
    """Let a subscription of one item cost other terms from its next period on.

    Stripe begins a period anew when the interval changes, and would charge for it at once; a trial until the next
    charge is due is its way to wait (https://docs.stripe.com/billing/subscriptions/billing-cycle).
    """
    wanted = _INTERVALS[terms.billing_period]
    params: SubscriptionUpdateParams = {
        "items": [
            {
                "id": item_id,
                "price_data": {
                    "currency": terms.currency.lower(),
                    "product": product,
                    "unit_amount": minor_units(terms.amount, terms.currency),
                    "recurring": {"interval": wanted},
                },
            }
        ],
        "proration_behavior": "none",
    }
    if wanted != interval:
        params["trial_end"] = int(terms.charge_from.timestamp())
    return params
