"""A program that speaks to PayPal by its official SDK: a request on each line of its input, an answer on each line out.

It runs in a process of its own, because packages beneath the SDK install a `tests` package that would hide ours.
"""

import json
import sys
from typing import Any

from paypalserversdk.configuration import (  # type: ignore[import-not-found]
    Configuration,
    Environment,
    Server,
)
from paypalserversdk.exceptions.error_exception import ErrorException  # type: ignore[import-not-found]
from paypalserversdk.http.auth.o_auth_2 import ClientCredentialsAuthCredentials  # type: ignore[import-not-found]
from paypalserversdk.models.amount_with_breakdown import AmountWithBreakdown  # type: ignore[import-not-found]
from paypalserversdk.models.checkout_payment_intent import CheckoutPaymentIntent  # type: ignore[import-not-found]
from paypalserversdk.models.money import Money  # type: ignore[import-not-found]
from paypalserversdk.models.order_request import OrderRequest  # type: ignore[import-not-found]
from paypalserversdk.models.purchase_unit_request import PurchaseUnitRequest  # type: ignore[import-not-found]
from paypalserversdk.models.refund_request import RefundRequest  # type: ignore[import-not-found]
from paypalserversdk.paypal_serversdk_client import PaypalServersdkClient  # type: ignore[import-not-found]


def connect(base_url: str, client_id: str, secret: str) -> Any:
    """Build the SDK's client; it knows two addresses, and one of them is now the fake's."""
    Configuration.environments[Environment.SANDBOX] = {Server.DEFAULT: base_url}
    return PaypalServersdkClient(
        client_credentials_auth_credentials=ClientCredentialsAuthCredentials(
            o_auth_client_id=client_id, o_auth_client_secret=secret
        ),
        environment=Environment.SANDBOX,
    )


def carry_out(client: Any, name: str, key: str, *args: str) -> Any:
    """Do one thing and tell what the SDK made of the answer."""
    if name == "create":
        unit = PurchaseUnitRequest(
            amount=AmountWithBreakdown(currency_code="USD", value=args[0]), custom_id="ours", invoice_id="inv-1"
        )
        body = OrderRequest(intent=CheckoutPaymentIntent.CAPTURE, purchase_units=[unit])
        order = client.orders.create_order({"body": body, "paypal_request_id": key}).body
        return {"id": order.id, "status": order.status, "links": [link.rel for link in order.links]}
    if name == "get":
        return {"status": client.orders.get_order({"id": args[0]}).body.status}
    if name == "capture":
        order = client.orders.capture_order({"id": args[0], "paypal_request_id": key}).body
        (capture,) = order.purchase_units[0].payments.captures
        told = {"id": capture.id, "status": capture.status, "value": capture.amount.value, "custom": capture.custom_id}
        return {"status": order.status, "capture": told}
    if name == "get_capture":
        capture = client.payments.get_captured_payment({"capture_id": args[0]}).body
        return {"order": capture.supplementary_data.related_ids.order_id}
    refund = client.payments.refund_captured_payment(
        {
            "capture_id": args[0],
            "paypal_request_id": key,
            "body": RefundRequest(amount=Money(currency_code="USD", value=args[1])),
        }
    ).body
    return {"status": refund.status, "value": refund.amount.value}


def main() -> None:
    client = connect(*sys.argv[1:4])
    for line in sys.stdin:
        try:
            answer = carry_out(client, *json.loads(line))
        except ErrorException as error:
            issues = [detail.issue for detail in error.details or []]
            answer = {"refused": error.response_code, "name": error.name, "issues": issues}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
