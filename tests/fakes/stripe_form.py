"""Stripe's request form, `a[b][0]=c` pairs, and the checks that its API makes of a checkout's parameters."""

from urllib.parse import parse_qsl

from tests.fakes.server import Obj

# What this fake understands; the real API refuses unknown parameters in the same words.
_SESSION_PARAMS = {
    "cancel_url",
    "client_reference_id",
    "customer",
    "customer_email",
    "line_items",
    "metadata",
    "mode",
    "payment_intent_data",
    "subscription_data",
    "success_url",
}
_THREE_DECIMAL = {"bhd", "jod", "kwd", "omr", "tnd"}
_WHOLE_ONLY = {"isk", "ugx"}


class BadParameter(Exception):
    """A request that Stripe answers with 400 `invalid_request_error`."""

    def __init__(self, message: str, *, param: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


def decode(body: str) -> Obj:
    """Decode an urlencoded form with bracketed keys into nested dicts; numbered keys become lists."""
    root: Obj = {}
    for key, value in parse_qsl(body, keep_blank_values=True, strict_parsing=bool(body)):
        path = key.replace("]", "").split("[")
        place = root
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
    return {key: _lists(item) for key, item in root.items()}


def _lists(value: object) -> object:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(item) for key, item in value.items()}


def session_line(params: Obj) -> Obj:
    """Check the parameters of a checkout; return its line as currency, unit_amount, interval ("" for one payment)."""
    unknown = params.keys() - _SESSION_PARAMS
    if unknown:
        name = min(unknown)
        raise BadParameter(f"Received unknown parameter: {name}", param=name, code="parameter_unknown")
    for name in ("mode", "success_url", "line_items"):
        if not params.get(name):
            raise BadParameter(f"Missing required param: {name}.", param=name, code="parameter_missing")
    if params["mode"] not in {"subscription", "payment"}:
        raise BadParameter("Invalid mode", param="mode")
    if "customer" in params and "customer_email" in params:
        raise BadParameter("You may only specify one of these parameters: customer, customer_email.", param="customer")
    if "@" not in params.get("customer_email", "@"):
        raise BadParameter(
            f"Invalid email address: {params['customer_email']}", param="customer_email", code="email_invalid"
        )
    if not params["success_url"].startswith(("http://", "https://")):
        raise BadParameter("Not a valid URL", param="success_url", code="url_invalid")
    _check_metadata(params.get("metadata", {}), "metadata")
    _check_metadata(params.get("subscription_data", {}).get("metadata", {}), "subscription_data[metadata]")
    _check_metadata(params.get("payment_intent_data", {}).get("metadata", {}), "payment_intent_data[metadata]")
    return _line(params["line_items"][0], is_recurring=params["mode"] == "subscription")


def _check_metadata(metadata: Obj, param: str) -> None:
    if len(metadata) > 50 or any(len(key) > 40 or len(value) > 500 for key, value in metadata.items()):
        raise BadParameter("Metadata is too large", param=param)


def _line(item: Obj, *, is_recurring: bool) -> Obj:
    place = "line_items[0][price_data]"
    try:
        data = item["price_data"]
        currency, amount = data["currency"], data["unit_amount"]
        interval = data["recurring"]["interval"] if is_recurring else ""
        name = data["product_data"]["name"]
    except KeyError as missing:
        param = f"{place}[{missing.args[0]}]"
        message = f"Missing required param: {param}."
        raise BadParameter(message, param=param, code="parameter_missing") from None
    if not amount.isdigit():
        message = f"Invalid integer: {amount}"
        raise BadParameter(message, param=f"{place}[unit_amount]", code="parameter_invalid_integer")
    if len(currency) != 3 or currency != currency.lower():
        raise BadParameter(f"Invalid currency: {currency}", param=f"{place}[currency]")
    step = 10 if currency in _THREE_DECIMAL else 100 if currency in _WHOLE_ONLY else 1
    if int(amount) % step:
        raise BadParameter(f"Invalid amount for {currency}", param=f"{place}[unit_amount]")
    is_known = interval in {"day", "week", "month", "year"} if is_recurring else "recurring" not in data
    if not is_known or not name:
        raise BadParameter("Invalid price_data", param=place)
    return {
        "currency": currency,
        "unit_amount": int(amount),
        "interval": interval,
        "quantity": int(item.get("quantity", "1")),
    }
