"""The other side: a BTCPay Server that thinks for two seconds before each answer, and that delivers at a steady pace.

    python -m bench.webhooks.provider

It tells its port. Each order is a JSON object a line, `{"do": "deliver", ...}`: `rate` deliveries a second for
`seconds` seconds to `url`, each tenth of them a repetition; answered by counts and by percentiles of the time until
each was acknowledged, counted from when it was due, so that a receiver that is late makes all behind it late too.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
import sys
import time
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

STORE = "9CiNzKoANXxmk5ayZngSXrHTiVvvgCrwrpFQd4m2K776"
SECRET = "a secret of the benchmark"  # noqa: S105 - both sides live for one run
THINKS_S = 2.0
_CONNECTIONS = 64
_PATIENCE_S = 30.0
# Providers deliver again what they think was not heard.
_REPEATED = 10


async def answer(request: web.Request) -> web.Response:
    """Answer as the real server does about an invoice that nobody has ordered here, but slowly."""
    await asyncio.sleep(THINKS_S)
    if request.path.endswith("/payment-methods"):
        return web.json_response([])
    now = unix_now()
    return web.json_response(
        {
            "id": request.path.rpartition("/")[2],
            "storeId": STORE,
            "amount": "49.99",
            "currency": "USD",
            "type": "Standard",
            "status": "New",
            "additionalStatus": "None",
            "checkoutLink": "https://btcpay.example/i/1",
            "createdTime": now,
            "expirationTime": now + 900,
            "monitoringExpiration": now + 3600,
            "metadata": {},
        }
    )


def unix_now() -> int:
    """Return the second by the machine's clock, which is that of the other side."""
    return int(time.time())  # noqa: TID251 - no clock of ours reaches the provider


def event() -> bytes:
    """Build a new event of a new invoice."""
    delivery = secrets.token_hex(11)
    content = {
        "deliveryId": delivery,
        "webhookId": "HSnLWZhVkbb3kwvDhqhb2k",
        "originalDeliveryId": delivery,
        "isRedelivery": False,
        "type": "InvoiceProcessing",
        "timestamp": unix_now(),
        "storeId": STORE,
        "invoiceId": secrets.token_hex(11),
        "metadata": {},
        "overPaid": False,
    }
    return json.dumps(content, indent=2).encode()


async def deliver(http: ClientSession, *, url: str, rate: float, seconds: float) -> dict[str, Any]:
    """Deliver at a pace that no answer holds up."""
    count = max(2, round(rate * seconds))
    bodies = [event() for _ in range(count)]
    for place in range(_REPEATED, count, _REPEATED):
        bodies[place] = bodies[place - 1]
    began = time.monotonic() + 0.1
    posts = []
    for place, body in enumerate(bodies):
        due = began + place / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        posts.append(asyncio.create_task(_post(http, url, body, due)))
    took_s = [took for took in await asyncio.gather(*posts) if took is not None]
    return {"sent": count, "distinct": len(set(bodies)), "refused": count - len(took_s), **percentiles(took_s)}


def percentiles(took_s: list[float]) -> dict[str, float]:
    """Return the time until acknowledgement in milliseconds."""
    ordered = sorted(took_s) or [0.0]
    places = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in places.items()}


async def _post(http: ClientSession, url: str, body: bytes, due: float) -> float | None:
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"BTCPay-Sig": f"sha256={signature}", "Content-Type": "application/json; charset=utf-8"}
    try:
        async with http.post(url, data=body, headers=headers) as response:
            await response.read()
            return time.monotonic() - due if response.ok else None
    except (ClientError, TimeoutError):
        return None


async def main() -> None:
    """Carry out orders until standard input ends."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    tell({"port": runner.addresses[0][1]})
    connector = TCPConnector(limit=_CONNECTIONS)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=_PATIENCE_S)) as http:
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            order.pop("do")
            tell(await deliver(http, **order))
    await runner.cleanup()


def tell(answer: dict[str, Any]) -> None:
    """Write one answer."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
