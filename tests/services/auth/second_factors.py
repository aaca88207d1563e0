"""What a user of an authenticator app does."""

from dataclasses import dataclass
from datetime import timedelta

import pyotp

from services.auth.views import ChallengeView, SessionView
from services.identity import Principal
from tests.support.identity import DEVICE, PASSWORD, PLATFORM, Identity


@dataclass(slots=True)
class Enrolled:
    """Somebody who has a second factor, and the app's secret."""

    view: SessionView
    actor: Principal
    secret: str
    recovery_codes: list[str]

    def code(self, identity: Identity, *, step: int = 0) -> str:
        """Return what the app shows, `step` times 30 seconds from now."""
        return pyotp.TOTP(self.secret).at(identity.clock.now() + step * timedelta(seconds=30))


async def enrolled(identity: Identity) -> Enrolled:
    """Sign up, switch the second factor on, and let the code that confirmed it grow old."""
    view = await identity.sign_up()
    actor = await identity.actor(view)
    async with identity.units(PLATFORM) as uow:
        enrolment = await identity.auth.second_factors.enrol(uow, actor)
    code = pyotp.TOTP(enrolment.secret).at(identity.clock.now())
    codes = await identity.auth.second_factors.confirm(actor, code=code)
    identity.clock.offset += timedelta(minutes=1)
    return Enrolled(view, actor, enrolment.secret, codes.recovery_codes)


async def challenge(identity: Identity, person: Enrolled, password: str = PASSWORD) -> ChallengeView:
    """Show the password and be asked for the second factor."""
    answer = await identity.auth.sessions.login(email=person.view.user.email, password=password, device=DEVICE)
    assert isinstance(answer, ChallengeView)
    return answer


async def answer(identity: Identity, asked: ChallengeView, code: str) -> SessionView:
    """Finish a sign-in."""
    return await identity.auth.challenges.answer(challenge_token=asked.challenge_token, code=code, device=DEVICE)
