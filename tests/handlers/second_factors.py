"""People of REST with an authenticator app."""

from datetime import timedelta

import pyotp

from tests.support.people import Person
from tests.support.running import Orchestrator


def code_of(secret: str, orchestrator: Orchestrator, *, later_s: int = 0) -> str:
    return pyotp.TOTP(secret).at(orchestrator.clock.now() + timedelta(seconds=later_s))


async def switch_on(person: Person, orchestrator: Orchestrator) -> tuple[str, list[str]]:
    """Set up an app and return its secret with the recovery codes."""
    status, answer = await person.post("auth/2fa/enrol")
    assert status == 200, answer
    secret: str = answer["data"]["secret"]
    status, answer = await person.post("auth/2fa/confirm", {"code": code_of(secret, orchestrator)})
    assert status == 200, answer
    return secret, answer["data"]["recovery_codes"]
