"""Where a payer may be sent back to."""

import pytest

from services.billing.return_urls import check_return_url


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/success",
        "http://localhost:3000/billing?session={CHECKOUT_SESSION_ID}#done",
        "HTTPS://SHOP.EXAMPLE/",
        "http://[::1]:8000/x",
        "erpmax://billing/success",
        "com.example.app://callback",
        "myapp://",
    ],
)
def test_pages_and_apps_are_allowed(url: str) -> None:
    assert check_return_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/relative",
        "//shop.example/x",
        "shop.example",
        "javascript://%0aalert(1)",
        "JavaScript://%0aalert(1)",
        "data://text/html,x",
        "vbscript://x",
        "file:///etc/passwd",
        "blob://x",
        "intent://scan/#Intent;end",
        "mailto:a@b.example",
        "javascript:alert(1)",
        "https:shop.example",
        "https:///path",
        "https://",
        "https://shop.example/\r\nSet-Cookie: a=b",
        "https://shop.example/a b",
        "https://shop.example\\@evil.example",
        "https://магазин.example/",
        "https://[::1",
        "https://shop.example/" + "x" * 2048,
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_return_url(url)
