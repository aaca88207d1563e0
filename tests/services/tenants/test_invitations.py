"""Invitations: known people join at once, others get one letter whose token works once, for them alone."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from core.pagination import PageRequest
from models.entitlements import Limit
from models.tenants import Invitation, InvitationState, Membership, Role
from services.auth import Newcomer
from services.auth.errors import EmailTaken
from services.auth.views import SessionView
from services.entitlements.desk import hold_tenant
from services.identity import RoleRequired
from services.tenants.errors import (
    AlreadyMember,
    InvitationClosed,
    InvitationExpired,
    InvitationForAnother,
    InvitationNotFound,
    NoTenantAccess,
    OwnerRoleNotGrantable,
)
from services.tenants.members import lock_user
from services.unit_of_work import TenantScope
from tests.support.identity import DEVICE, PASSWORD, PLATFORM, Identity, tenant_of, token_in

NEWCOMER = Newcomer(full_name="Nina Newcomer", password=PASSWORD, locale="en")


def unique_email() -> str:
    return f"guest-{uuid4().hex}@example.org"


async def accept(identity: Identity, token: str, who: SessionView | None = None) -> SessionView:
    guest = await identity.actor(who) if who else NEWCOMER
    return await identity.auth.registration.accept_invitation(token=token, guest=guest, device=DEVICE)


async def revoke(identity: Identity, host: SessionView, invitation_id: UUID) -> None:
    actor, tenant_id = await identity.actor(host), tenant_of(host)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.tenants.invitations.revoke(uow, actor, tenant_id=tenant_id, invitation_id=invitation_id)


async def letter_token(identity: Identity, email: str) -> str:
    return token_in((await identity.letters(email))[-1].body)


async def state_of(identity: Identity, invitation_id: UUID) -> InvitationState:
    invitation: Invitation = await identity.one(select(Invitation).where(Invitation.id == invitation_id))
    return invitation.state


async def test_a_new_person_joins_by_the_letters_token(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    invited = await identity.invite(host, email, Role.ADMIN)
    assert invited.user_id is None
    token = await letter_token(identity, email)

    view = await accept(identity, token)

    assert (view.user.email, view.user.full_name) == (email, "Nina Newcomer")
    assert tenant_of(view) == tenant_of(host) == view.user.default_tenant_id
    assert [(place.role, place.is_default) for place in view.tenants] == [(Role.ADMIN, True)]
    assert (await identity.actor(view)).role is Role.ADMIN
    assert (await identity.login(email)).user.id == view.user.id
    assert await state_of(identity, invited.invitation_id) is InvitationState.ACCEPTED
    with pytest.raises(InvitationClosed):
        await accept(identity, token)


async def test_the_letter_names_the_company_and_hides_the_token_elsewhere(identity: Identity) -> None:
    host, email = await identity.sign_up(company="Break\r\nBcc: everybody@example.org", locale="ru"), unique_email()

    invited = await identity.invite(host, email)

    (letter,) = await identity.letters(email)
    assert letter.subject == "Sam Someone приглашает вас в Break Bcc: everybody@example.org"
    token = token_in(letter.body)
    assert f"http://localhost/invitations/{token}" in letter.body
    stored = await identity.one(select(Invitation).where(Invitation.id == invited.invitation_id))
    assert token not in repr(vars(stored))
    assert stored.expires_at - stored.created_at == timedelta(days=7)


async def test_a_known_person_joins_at_once(identity: Identity) -> None:
    host, guest = await identity.sign_up(), await identity.sign_up()

    invited = await identity.invite(host, guest.user.email.upper(), Role.MEMBER)

    assert (invited.user_id, invited.role, invited.invitation_id) == (guest.user.id, Role.MEMBER, None)
    place = await identity.one(
        select(Membership).where(Membership.tenant_id == tenant_of(host), Membership.user_id == guest.user.id)
    )
    assert (place.role, place.is_default) == (Role.MEMBER, False), "the earlier default stays"
    (letter,) = await identity.letters(guest.user.email)
    assert letter.subject == f"You are now a member of {host.current_tenant.name}"  # type: ignore[union-attr]
    with pytest.raises(AlreadyMember, match=f"User {guest.user.email} in this tenant already exists"):
        await identity.invite(host, guest.user.email)


async def test_one_person_invited_twice_at_once_joins_once(identity: Identity) -> None:
    host, guest = await identity.sign_up(), await identity.sign_up()

    outcomes = await asyncio.gather(
        *(identity.invite(host, guest.user.email) for _ in range(4)), return_exceptions=True
    )

    assert sum(isinstance(outcome, AlreadyMember) for outcome in outcomes) == 3
    count = await identity.one(select(func.count()).where(Membership.user_id == guest.user.id))
    assert count == 2


async def test_a_person_without_a_tenant_added_to_two_at_once_has_one_default(identity: Identity) -> None:
    hosts = [await identity.sign_up() for _ in range(3)]
    first, email = await identity.sign_up(), unique_email()
    await identity.invite(first, email)
    guest = await accept(identity, await letter_token(identity, email))
    actor, tenant_id = await identity.actor(first), tenant_of(first)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.tenants.members.remove(uow, actor, tenant_id=tenant_id, user_id=guest.user.id)

    await asyncio.gather(*(identity.invite(host, email) for host in hosts))

    places = await identity.rows(select(Membership).where(Membership.user_id == guest.user.id))
    assert sorted(place.is_default for place in places) == [False, False, True]


async def test_inviting_again_renews_the_invitation(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    first = await identity.invite(host, email, Role.USER)
    old_token = await letter_token(identity, email)
    identity.clock.offset = timedelta(days=6)
    host = await identity.login(host.user.email)

    second = await identity.invite(host, email.upper(), Role.ADMIN)

    assert second.invitation_id == first.invitation_id
    identity.clock.offset = timedelta(days=12)
    with pytest.raises(InvitationNotFound):
        await accept(identity, old_token)
    view = await accept(identity, await letter_token(identity, email))
    assert [place.role for place in view.tenants] == [Role.ADMIN]


async def test_an_address_invited_twice_at_once_has_one_invitation(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()

    outcomes = await asyncio.gather(*(identity.invite(host, spelling) for spelling in (email, email.upper()) * 2))

    assert len({outcome.invitation_id for outcome in outcomes}) == 1
    invitations = await identity.rows(select(Invitation).where(Invitation.tenant_id == tenant_of(host)))
    assert [invitation.state for invitation in invitations] == [InvitationState.PENDING]
    (letter,) = await identity.letters(email)
    assert tenant_of(await accept(identity, token_in(letter.body))) == tenant_of(host)


async def test_an_invitation_accepted_twice_at_once_makes_one_user(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    await identity.invite(host, email)
    token = await letter_token(identity, email)

    outcomes = await asyncio.gather(*(accept(identity, token) for _ in range(4)), return_exceptions=True)

    assert sum(isinstance(outcome, SessionView) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, InvitationClosed) for outcome in outcomes) == 3


async def test_an_invitation_is_good_for_a_week_and_its_end_is_written(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    invited = await identity.invite(host, email)
    token = await letter_token(identity, email)

    identity.clock.offset = timedelta(days=7, seconds=1)
    for _ in range(2):
        with pytest.raises(InvitationExpired):
            await accept(identity, token)

    assert await state_of(identity, invited.invitation_id) is InvitationState.EXPIRED


async def test_who_signed_up_meanwhile_accepts_signed_in(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    await identity.invite(host, email)
    token = await letter_token(identity, email)
    guest, thief = await identity.sign_up(email=email.title()), await identity.sign_up()

    with pytest.raises(EmailTaken):
        await accept(identity, token)
    with pytest.raises(InvitationForAnother, match="sent to another e-mail address"):
        await accept(identity, token, thief)
    view = await accept(identity, token, guest)

    assert tenant_of(view) == tenant_of(host)
    assert {place.tenant_id: place.is_default for place in view.tenants} == {
        tenant_of(guest): True,
        tenant_of(host): False,
    }


async def test_being_added_closes_the_earlier_invitation(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    invited = await identity.invite(host, email)
    token = await letter_token(identity, email)
    guest = await identity.sign_up(email=email)

    await identity.invite(host, email)

    assert await state_of(identity, invited.invitation_id) is InvitationState.REVOKED
    with pytest.raises(InvitationClosed):
        await accept(identity, token, guest)


async def test_accepting_and_being_added_at_once_do_not_wait_for_each_other(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    await identity.invite(host, email)
    token = await letter_token(identity, email)
    guest = await identity.sign_up(email=email)

    async with identity.units(PLATFORM) as uow:
        # Both wait here, the host first; whoever held the invitation meanwhile would be waited for by the host.
        await lock_user(uow, guest.user.id)
        adding = asyncio.create_task(identity.invite(host, email))
        await asyncio.wait([adding], timeout=0.3)
        accepting = asyncio.create_task(accept(identity, token, guest))
        done, _ = await asyncio.wait([adding, accepting], timeout=0.3)
        assert not done

    assert (await adding).user_id == guest.user.id
    with pytest.raises(InvitationClosed):
        await accepting
    mine = (Membership.tenant_id == tenant_of(host), Membership.user_id == guest.user.id)
    assert len(await identity.rows(select(Membership).where(*mine))) == 1


async def test_accepting_locks_in_the_order_in_which_inviting_does(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    await identity.invite(host, email)
    token = await letter_token(identity, email)
    guest = await identity.sign_up(email=email)

    async with identity.units(PLATFORM) as uow:
        await hold_tenant(uow, tenant_of(host))
        accepting = asyncio.create_task(accept(identity, token, guest))
        done, _ = await asyncio.wait([accepting], timeout=0.5)
        assert not done
        await lock_user(uow, guest.user.id)

    assert tenant_of(await accepting) == tenant_of(host)


async def test_a_revoked_invitation_is_void(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    invited = await identity.invite(host, email)
    token = await letter_token(identity, email)

    await revoke(identity, host, invited.invitation_id)

    with pytest.raises(InvitationClosed):
        await accept(identity, token)
    with pytest.raises(InvitationClosed):
        await revoke(identity, host, invited.invitation_id)
    again = await identity.invite(host, email)
    assert again.invitation_id != invited.invitation_id


async def test_an_address_gets_one_letter_a_minute(identity: Identity) -> None:
    host, email = await identity.sign_up(), unique_email()
    for role in (Role.USER, Role.MEMBER):
        await identity.invite(host, email, role)
    invited = await identity.invite(host, email, Role.ADMIN)
    assert len(await identity.letters(email)) == 1
    # Nor does taking the offer back bring another letter.
    for _ in range(3):
        await revoke(identity, host, invited.invitation_id)
        invited = await identity.invite(host, email, Role.ADMIN)
    (letter,) = await identity.letters(email)

    view = await accept(identity, token_in(letter.body))

    assert [place.role for place in view.tenants] == [Role.ADMIN], "the letter leads to the last offer"
    assert await state_of(identity, invited.invitation_id) is InvitationState.ACCEPTED


async def test_after_a_minute_there_is_another_letter(identity: Identity) -> None:
    host, other, email = await identity.sign_up(), await identity.sign_up(), unique_email()
    await identity.invite(host, email)
    identity.clock.offset = timedelta(seconds=50)
    await identity.invite(host, email)
    assert len(await identity.letters(email)) == 1
    await identity.invite(other, email)
    assert len(await identity.letters(email)) == 2, "another tenant's offer needs a letter of its own"
    identity.clock.offset = timedelta(seconds=61)

    await identity.invite(host, email)

    assert len(await identity.letters(email)) == 3
    assert tenant_of(await accept(identity, await letter_token(identity, email))) == tenant_of(host)


async def test_who_is_removed_and_added_again_gets_one_letter_a_minute(identity: Identity) -> None:
    host, guest = await identity.sign_up(), await identity.sign_up()
    actor, tenant_id = await identity.actor(host), tenant_of(host)

    async def added() -> int:
        await identity.invite(host, guest.user.email)
        async with identity.units(TenantScope(tenant_id)) as uow:
            await identity.tenants.members.remove(uow, actor, tenant_id=tenant_id, user_id=guest.user.id)
        subject = f"You are now a member of {host.current_tenant.name}"  # type: ignore[union-attr]
        return [letter.subject for letter in await identity.letters(guest.user.email)].count(subject)

    assert [await added(), await added()] == [1, 1]
    identity.clock.offset = timedelta(seconds=61)
    assert await added() == 2


async def test_nobody_revokes_what_is_not_theirs(identity: Identity) -> None:
    host, stranger, email = await identity.sign_up(), await identity.sign_up(), unique_email()
    invited = await identity.invite(host, email)

    for invitation_id in (invited.invitation_id, uuid4()):
        with pytest.raises(InvitationNotFound, match="Invitation not found"):
            await revoke(identity, stranger, invitation_id)
    assert await state_of(identity, invited.invitation_id) is InvitationState.PENDING


@pytest.mark.parametrize("token", ["", "x" * 43, "żółw", "\udcff"], ids=["empty", "unknown", "letters", "no text"])
async def test_a_bad_token_opens_nothing(identity: Identity, token: str) -> None:
    with pytest.raises(InvitationNotFound):
        await accept(identity, token)


async def test_inviting_is_for_owners_and_admins_and_never_to_own(identity: Identity) -> None:
    host, guest, stranger = await identity.sign_up(), await identity.sign_up(), await identity.sign_up()
    await identity.invite(host, guest.user.email, Role.USER)
    (place,) = [place for place in (await identity.login(guest.user.email)).tenants if not place.is_default]

    with pytest.raises(OwnerRoleNotGrantable):
        await identity.invite(host, unique_email(), Role.OWNER)
    for who, error in ((guest, RoleRequired), (stranger, NoTenantAccess)):
        actor = await identity.actor(who)
        with pytest.raises(error):
            async with identity.units(TenantScope(place.tenant_id)) as uow:
                await identity.tenants.invitations.invite(
                    uow, actor, tenant_id=place.tenant_id, email=unique_email(), role=Role.USER
                )


async def test_invitations_are_listed_with_the_state_people_should_see(identity: Identity) -> None:
    host, emails = await identity.sign_up(), [unique_email() for _ in range(3)]
    await identity.allow(host, Limit.USERS, 4)
    for email in emails:
        await identity.invite(host, email)
    await accept(identity, await letter_token(identity, emails[1]))
    actor, tenant_id = await identity.actor(host), tenant_of(host)

    identity.clock.offset = timedelta(days=8)
    async with identity.units(TenantScope(tenant_id)) as uow:
        page = await identity.tenants.invitations.list(uow, actor, tenant_id=tenant_id, page=PageRequest())

    assert page.total == 3
    assert [(view.email, view.state) for view in page.items] == [
        (emails[2], InvitationState.EXPIRED),
        (emails[1], InvitationState.ACCEPTED),
        (emails[0], InvitationState.EXPIRED),
    ]
    assert {view.invited_by for view in page.items} == {host.user.id}
