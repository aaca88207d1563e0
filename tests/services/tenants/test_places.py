"""As many people as the plan allows: whoever invites, joins or is added at once, and whatever the plan becomes."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from models.entitlements import Limit
from models.overrides import EntitlementOverride
from models.tenants import Invitation, InvitationState, Membership, Role
from services.auth.views import SessionView
from services.entitlements.errors import PlanLimitReached
from services.tenants.errors import AlreadyMember
from tests.services.tenants.test_invitations import accept, letter_token, revoke, unique_email
from tests.support.identity import PLATFORM, Identity, tenant_of


async def places(identity: Identity, host: SessionView) -> tuple[int, int]:
    """Return how many members and how many open invitations a tenant has."""
    async with identity.units(PLATFORM) as uow:
        members = await uow.session.scalar(
            select(func.count()).select_from(Membership).where(Membership.tenant_id == tenant_of(host))
        )
        offers = await uow.session.scalar(
            select(func.count())
            .select_from(Invitation)
            .where(Invitation.tenant_id == tenant_of(host), Invitation.state == InvitationState.PENDING)
        )
    return members or 0, offers or 0


async def allow(identity: Identity, host: SessionView, value: int) -> None:
    """Change what a tenant was allowed before."""
    row = await identity.one(select(EntitlementOverride).where(EntitlementOverride.tenant_id == tenant_of(host)))
    async with identity.units(PLATFORM) as uow:
        (await uow.session.get_one(EntitlementOverride, row.id)).value = value


def refused(outcomes: Sequence[object]) -> int:
    assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} <= {PlanLimitReached}
    return sum(isinstance(outcome, PlanLimitReached) for outcome in outcomes)


async def test_of_fifty_invitations_at_once_only_those_that_have_a_place_are_sent(identity: Identity) -> None:
    host = await identity.sign_up()
    outcomes = await asyncio.gather(*(identity.invite(host, unique_email()) for _ in range(50)), return_exceptions=True)
    # The trial is for three, of whom the owner is one.
    assert (refused(outcomes), await places(identity, host)) == (48, (1, 2))
    with pytest.raises(PlanLimitReached) as refusal:
        await identity.invite(host, unique_email())
    assert refusal.value.details == {"limit": "users", "used": 3, "allowed": 3}


async def test_known_people_and_strangers_take_the_same_places(identity: Identity) -> None:
    host = await identity.sign_up()
    await identity.allow(host, Limit.USERS, 4)
    known = [(await identity.sign_up()).user.email for _ in range(6)]
    emails = [*known, *(unique_email() for _ in range(6))]
    outcomes = await asyncio.gather(*(identity.invite(host, email) for email in emails), return_exceptions=True)
    assert refused(outcomes) == 9
    assert sum(await places(identity, host)) == 4


async def test_a_place_is_free_again_when_an_offer_is_revoked_or_over(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    first = await identity.invite(host, email)
    await identity.invite(host, unique_email())
    # Renewing an offer, and adding whom it was made to, need no further place.
    await identity.invite(host, email.upper())
    guest = await identity.sign_up(email=email)
    await identity.invite(host, guest.user.email)
    with pytest.raises(AlreadyMember):
        await identity.invite(host, guest.user.email)
    with pytest.raises(PlanLimitReached):
        await identity.invite(host, unique_email())
    identity.clock.offset += timedelta(days=8)
    host = await identity.login(host.user.email)
    third = await identity.invite(host, unique_email())
    await revoke(identity, host, third.invitation_id)
    await identity.invite(host, unique_email())
    assert first.invitation_id is not None


async def test_an_offer_is_taken_while_there_is_a_place_for_a_member(identity: Identity) -> None:
    host, emails = await identity.sign_up(), [unique_email() for _ in range(4)]
    await identity.allow(host, Limit.USERS, 5)
    for email in emails:
        await identity.invite(host, email)
    tokens = [await letter_token(identity, email) for email in emails]
    await allow(identity, host, 3)
    outcomes = await asyncio.gather(*(accept(identity, token) for token in tokens), return_exceptions=True)
    assert (refused(outcomes), await places(identity, host)) == (2, (3, 2))
    # Whoever was refused is not lost: the letter is good once there is a place.
    await allow(identity, host, -1)
    late = tokens[next(number for number, outcome in enumerate(outcomes) if isinstance(outcome, PlanLimitReached))]
    await accept(identity, late)
    assert await places(identity, host) == (4, 1)


async def test_joining_and_inviting_at_once_wait_for_each_other_without_a_deadlock(identity: Identity) -> None:
    host = await identity.sign_up()
    await identity.allow(host, Limit.USERS, 30)
    guests = [await identity.sign_up() for _ in range(5)]
    emails = [unique_email() for _ in range(5)]
    for email in emails:
        await identity.invite(host, email)
    tokens = [await letter_token(identity, email) for email in emails]
    await asyncio.gather(
        *(accept(identity, token) for token in tokens),
        *(identity.invite(host, guest.user.email, Role.MEMBER) for guest in guests),
        *(identity.invite(host, unique_email()) for _ in range(5)),
    )
    assert await places(identity, host) == (11, 5)


async def test_whoever_is_over_the_limit_stays(identity: Identity) -> None:
    host = await identity.sign_up()
    await identity.allow(host, Limit.USERS, 5)
    for _ in range(3):
        await identity.invite(host, (await identity.sign_up()).user.email)
    await allow(identity, host, 1)
    with pytest.raises(PlanLimitReached) as refusal:
        await identity.invite(host, unique_email())
    assert refusal.value.details == {"limit": "users", "used": 4, "allowed": 1}
    assert await places(identity, host) == (4, 0)
