"""schemathesis against the running server: no 5xx, and no answer that /openapi.json does not describe."""

import asyncio
import sys
from pathlib import Path

import pytest

from handlers.rest import Access
from server.web import endpoints
from tests.support.people import RegisterCompany
from tests.support.running import Orchestrator

pytestmark = [pytest.mark.embedded, pytest.mark.slow]

# What ends the session that the whole run needs.
_ENDINGS = (
    *(f"v1/auth/{name}" for name in ("logout", "logout-all", "logout-everywhere", "switch-tenant")),
    *("v1/auth/sessions/{session_id}", "auth/logout"),
)
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


async def fuzz(url: str, *options: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{url}/openapi.json",
        f"--checks={CHECKS}",
        "--max-examples=3",
        "--seed=1",
        "--no-color",
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_a_signed_in_owner_finds_no_hole(orchestrator: Orchestrator, company: RegisterCompany) -> None:
    owner = await company()
    # Signing out would turn every later answer into a 401; so would the tokens of a switch, because schemathesis
    # plays a token it saw back twice and is rightly taken for a thief.
    without = [f"--exclude-path=/api/{name}" for name in _ENDINGS]
    # Coverage of every bound of every field takes minutes on so many routes; strangers' routes get it below.
    signed_in = ("-H", f"Authorization: Bearer {owner.token}", "--phases=examples,fuzzing")
    code, output = await fuzz(orchestrator.url, *signed_in, *without)
    assert code == 0, output[-6000:]
    assert " passed" in output, output[-2000:]
    status, answer = await owner.get("auth/me")
    assert status == 200, f"the token was not good to the end: {answer}"


async def test_a_stranger_finds_no_hole(orchestrator: Orchestrator) -> None:
    """Only what is open to strangers: that everything else answers 401 is in the authorisation matrix."""
    strangers = (Access.PUBLIC, Access.OPTIONAL)
    public = {endpoint.path for endpoint in endpoints(development=True) if endpoint.access in strangers}
    paths = [f"--include-path={path}" for path in public]
    code, output = await fuzz(orchestrator.url, "--phases=examples,coverage,fuzzing", *paths)
    assert code == 0, output[-6000:]
