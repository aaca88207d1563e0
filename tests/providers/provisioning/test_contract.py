"""Targets that a command could misread are refused."""

import pytest

from providers.provisioning.contract import InvalidTarget
from tests.providers.provisioning.support import make_target


@pytest.mark.parametrize(
    "site_name",
    [
        "-rf.example.test",
        "../etc",
        "a/b",
        "a\\b",
        ".hidden",
        "a..b",
        "a.",
        "",
        "UPPER.test",
        "a b",
        "a\nb",
        "a;b",
        "a.-b",
        f"{'a' * 64}.test",
        ".".join(["a" * 60] * 5),
        "имя.test",
    ],
)
def test_site_name_is_a_host_name(site_name: str) -> None:
    with pytest.raises(InvalidTarget):
        make_target(site_name=site_name)


@pytest.mark.parametrize(
    "fields",
    [
        {"slug": "-x"},
        {"slug": "a.b"},
        {"slug": "a/b"},
        {"slug": ""},
        {"site_url": "javascript:alert(1)"},
        {"site_url": "https://-x"},
        {"site_url": "https://x y"},
        {"site_url": "--url"},
        {"plan": "--force"},
        {"plan": "a b"},
        {"plan": ""},
        {"admin_email": "-x@example.test"},
        {"admin_email": "nobody"},
        {"admin_email": "a@b\n"},
        {"admin_email": "../a@example.test"},
    ],
)
def test_other_fields_cannot_be_options_or_paths(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidTarget):
        make_target(**fields)


@pytest.mark.parametrize("site_name", ["a", "acme.example.test", "a-b.c-d.test", "xn--80ak6aa92e.test", "1.test"])
def test_ordinary_names_are_taken(site_name: str) -> None:
    assert make_target(site_name=site_name, admin_email=None).site_name == site_name
