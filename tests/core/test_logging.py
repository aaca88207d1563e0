"""Logging: one line per event in one form for everybody, and no secret in any of them."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from core.logging import mask_secrets

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "new_password",
        "PASSWORD",
        "secret",
        "client_secret",
        "access_token",
        "refreshToken",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "api_key",
        "X-Api-Key",
        "apikey",
        "Stripe-Signature",
    ],
)
def test_a_key_that_names_a_secret_hides_its_value(key: str) -> None:
    assert SECRET not in str(mask_secrets(None, "info", {"event": "x", key: SECRET}))


@pytest.mark.parametrize(
    "value",
    [
        {"password": SECRET},
        {"a": {"b": {"c": {"token": SECRET}}}},
        [{"token": SECRET}],
        ({"token": SECRET},),
        {"a": [1, ({"b": [{"secret": [SECRET]}]},)]},
        {"token": {"inner": SECRET}},
        MappingProxyType({"token": SECRET}),
        CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {SECRET}"})),
        {"headers": CIMultiDict({"Cookie": SECRET})},
    ],
    ids=range(9),
)
def test_secrets_are_found_at_any_depth(value: object) -> None:
    assert SECRET not in str(mask_secrets(None, "info", {"event": "x", "value": value}))


def test_the_rest_stays_as_it_is_and_the_caller_keeps_its_own() -> None:
    body: dict[str, Any] = {"password": SECRET, "email": "a@example.org", "n": [1, {"ok": True}]}
    masked = mask_secrets(None, "info", {"event": "x", "body": body})
    assert masked["body"] == {"password": "[hidden]", "email": "a@example.org", "n": [1, {"ok": True}]}
    assert body["password"] == SECRET, "what is logged is a copy"


def test_what_the_database_tells_of_a_row_is_left_out() -> None:
    told = f"null value in column\nDETAIL:  Failing row contains (7, {SECRET}).\n[SQL: INSERT INTO users]"
    for text in (told, repr(told)):
        masked = mask_secrets(None, "error", {"event": "request failed", "exception": text})["exception"]
        assert SECRET not in masked
        assert "null value in column" in masked
        assert "INSERT INTO users" in masked


def run(program: str, *, as_json: bool) -> list[str]:
    """Run a program that logs, in a process of its own because logging is set up once per process."""
    setup = f"""
        import logging, structlog
        from core.logging import configure_logging
        configure_logging(level="INFO", as_json={as_json})
        log = structlog.get_logger("ours")
    """
    source = textwrap.dedent(setup) + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "", "logs go to standard error"
    return done.stderr.splitlines()


def test_machines_get_one_json_object_per_event() -> None:
    lines = run(
        f"""
        log.debug("not shown")
        with structlog.contextvars.bound_contextvars(request_id="r-1"):
            log.info("ours", password="{SECRET}", nested={{"token": "{SECRET}"}}, text="two\\nlines")
            logging.getLogger("theirs").warning("theirs %s", "too")
        logging.getLogger("socketio").info("chatter")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("failed")
        """,
        as_json=True,
    )
    ours, theirs, failed = (json.loads(line) for line in lines)
    assert SECRET not in "".join(lines)
    assert (ours["event"], ours["level"], ours["request_id"]) == ("ours", "info", "r-1")
    assert ours["timestamp"].endswith("Z")
    assert (ours["password"], ours["nested"], ours["text"]) == ("[hidden]", {"token": "[hidden]"}, "two\nlines")
    assert (theirs["event"], theirs["level"], theirs["request_id"]) == ("theirs too", "warning", "r-1")
    assert failed["level"] == "error"
    assert "ZeroDivisionError" in failed["exception"]


def test_people_get_lines_they_can_read() -> None:
    (line,) = run(f"log.warning('watch out', token='{SECRET}', count=3)", as_json=False)
    assert "watch out" in line
    assert "count=3" in line
    assert SECRET not in line


def test_masking_takes_every_kind_of_mapping_for_one() -> None:
    value: Mapping[str, Mapping[str, str]] = MappingProxyType({"a": MappingProxyType({"token": SECRET, "b": "c"})})
    masked = mask_secrets(None, "info", {"event": "x", "value": value})
    assert masked["value"]["a"]["b"] == "c"
    assert masked["value"]["a"]["token"] == "[hidden]"
