"""Places offered by e-mail (contract.md 3.2): known people join at once, others get a letter with a token.

Where nobody is told who has an account, everybody gets the letter (docs/adr/0024).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert

from core.pagination import Page, PageRequest
from core.tokens import new_opaque_token, token_hash
from models.audit import AuditEntry
from models.entitlements import Limit
from models.tenants import Invitation, InvitationState, Membership, Role, Tenant
from models.users import User
from services.closed_tenants import require_open
from services.entitlements.desk import EntitlementDesk, hold_tenant
from services.entitlements.usage import members, open_invitations
from services.identity import Principal, require_oneself
from services.mail import LETTER_PAUSE, MailService
from services.permissions import Permission
from services.tenants.errors import (
    AlreadyMember,
    BuyerRoleNotGrantable,
    InvitationClosed,
    InvitationExpired,
    InvitationNotFound,
    OwnerRoleNotGrantable,
)
from services.tenants.members import attach, membership_of, place_of
from services.tenants.views import InvitationView, InvitedView, OfferView
from services.unit_of_work import UnitOfWork
from services.verification import Verification

LIFETIME = timedelta(days=7)


class Invitations:
    """The use cases of inviting; `public_url` is where the links of letters lead, without a trailing slash.

    Of a plan's users members and open invitations are counted together. `disclosed` is whether hosts are told which
    addresses have an account.
    """

    def __init__(
        self,
        *,
        mail: MailService,
        entitlements: EntitlementDesk,
        public_url: str,
        verification: Verification,
        disclosed: bool,
    ) -> None:
        self._mail = mail
        self._entitlements = entitlements
        self._verification = verification
        self._public_url = public_url
        self._disclosed = disclosed

    async def require_host(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID) -> None:
        """Let only owners and admins pass; raises NoTenantAccess and RoleRequired."""
        await membership_of(uow, actor, tenant_id, Permission.MEMBERS_INVITE)

    async def invite(
        self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, email: str, role: Role
    ) -> InvitedView:
        """Offer a place; for owners and admins. Needs a PlatformScope, for a user's default may be elsewhere.

        Inviting an address again renews its invitation, whose earlier token is void. Within a minute after a letter
        no other is sent: the offer changes its role, and the letter that was sent leads to it.
        Raises AlreadyMember, OwnerRoleNotGrantable, BuyerRoleNotGrantable, EmailUnverified, Impersonated,
        PlanLimitReached, TenantDeleted and TenantSuspended.
        """
        host = await membership_of(uow, actor, tenant_id, Permission.MEMBERS_INVITE)
        # A place that is given away outlasts whoever acts in somebody's name.
        require_oneself(actor)
        if role is Role.OWNER:
            raise OwnerRoleNotGrantable
        if role is Role.BUYER:
            raise BuyerRoleNotGrantable
        await self._verification.require(uow, actor)
        await hold_tenant(uow, tenant_id)
        await require_open(uow, tenant_id)
        if not self._disclosed:
            await _refuse_members(uow, tenant_id, email)
            return await self._offer(uow, actor, host, email, role)
        user = await uow.session.scalar(select(User).where(User.has_email(email)))
        # An account whose address nobody has confirmed may be somebody else's: only the letter can tell.
        if user is not None and self._verification.believes(user):
            return await self._add(uow, actor, host, user, role)
        return await self._offer(uow, actor, host, email, role)

    async def list(
        self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, page: PageRequest
    ) -> Page[InvitationView]:
        """Show the invitations, newest first; for owners and admins."""
        await place_of(uow, actor, tenant_id, Permission.MEMBERS_READ)
        total = await uow.session.scalar(
            select(func.count()).select_from(Invitation).where(Invitation.tenant_id == tenant_id)
        )
        rows = await uow.session.scalars(
            select(Invitation)
            .where(Invitation.tenant_id == tenant_id)
            .order_by(Invitation.created_at.desc(), Invitation.id)
            .offset(page.offset)
            .limit(page.size)
        )
        items = [InvitationView.of(row, now=uow.now) for row in rows]
        return Page(items=items, total=total or 0, request=page)

    async def revoke(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, invitation_id: UUID) -> None:
        """Take an offer back; for owners and admins.

        Raises InvitationNotFound, InvitationClosed and Impersonated.
        """
        await membership_of(uow, actor, tenant_id, Permission.MEMBERS_INVITE)
        require_oneself(actor)
        invitation = await uow.session.scalar(
            select(Invitation)
            .where(Invitation.id == invitation_id, Invitation.tenant_id == tenant_id)
            .with_for_update()
        )
        if invitation is None:
            raise InvitationNotFound
        if not invitation.revoke():
            raise InvitationClosed
        uow.audit(
            "invitation.revoked",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("invitation", invitation.id),
        )

    async def offer(self, uow: UnitOfWork, token: str) -> OfferView:
        """Show whoever holds a letter's token what it offers. Needs a PlatformScope. Raises InvitationNotFound."""
        statement = (
            select(Invitation, Tenant.name, User.full_name)
            .join(Tenant, Tenant.id == Invitation.tenant_id)
            .outerjoin(User, User.id == Invitation.invited_by)
            .where(Invitation.token_hash == _hash(token))
        )
        found = (await uow.session.execute(statement)).one_or_none()
        if found is None:
            raise InvitationNotFound
        invitation, tenant_name, inviter_name = found
        return OfferView(
            tenant_name=tenant_name,
            inviter_name=inviter_name,
            email=invitation.email,
            state=invitation.shown_state(uow.now),
        )

    async def find(self, uow: UnitOfWork, token: str) -> Invitation:
        """Return the invitation of a letter's token, locked and pending, though its time may be over.

        Needs a PlatformScope. Raises InvitationNotFound, InvitationExpired and InvitationClosed.
        """
        of_token = Invitation.token_hash == _hash(token)
        tenant_id = await uow.session.scalar(select(Invitation.tenant_id).where(of_token))
        if tenant_id is not None:
            # Before the invitation, as whoever invites locks them.
            await hold_tenant(uow, tenant_id)
        invitation = await uow.session.scalar(select(Invitation).where(of_token).with_for_update())
        if invitation is None:
            raise InvitationNotFound
        if invitation.state is InvitationState.EXPIRED:
            raise InvitationExpired
        if invitation.state is not InvitationState.PENDING:
            raise InvitationClosed
        return invitation

    async def accept(self, uow: UnitOfWork, invitation: Invitation, *, user: User) -> Membership:
        """Give the place offered by a found invitation to `user`; needs a PlatformScope.

        Raises PlanLimitReached when the plan has become too small since it was offered.
        """
        tenant_id = invitation.tenant_id
        if not await _is_member(uow, tenant_id, user.id):
            used = await members(uow, tenant_id)
            await self._entitlements.require_room(uow, tenant_id, Limit.USERS, used=used)
        invitation.accept(uow.now)
        membership, _ = await attach(uow, tenant_id=invitation.tenant_id, user_id=user.id, role=invitation.role)
        uow.audit(
            "invitation.accepted",
            actor_id=user.id,
            tenant_id=invitation.tenant_id,
            subject=("invitation", invitation.id),
            details={"role": membership.role},
        )
        return membership

    async def _add(self, uow: UnitOfWork, actor: Principal, host: Membership, user: User, role: Role) -> InvitedView:
        if await _is_member(uow, host.tenant_id, user.id):
            raise AlreadyMember(user.shown_email)
        await self._require_place(uow, host.tenant_id, user.shown_email)
        membership, _ = await attach(uow, tenant_id=host.tenant_id, user_id=user.id, role=role)
        await self._settle_earlier(uow, host.tenant_id, user.shown_email)
        if not await _was_added_just_now(uow, host.tenant_id, user.id):
            self._mail.enqueue_letter(
                uow,
                "added_to_tenant",
                recipient=user.shown_email,
                locale=user.locale,
                full_name=user.full_name,
                email=user.shown_email,
                inviter=(await _user(uow, actor)).full_name,
                tenant=host.tenant.name,
                link=self._public_url,
            )
        uow.audit(
            "member.added",
            actor_id=actor.user_id,
            tenant_id=host.tenant_id,
            subject=("user", user.id),
            details={"role": role},
        )
        return InvitedView(user_id=user.id, role=membership.role, invitation_id=None)

    async def _offer(self, uow: UnitOfWork, actor: Principal, host: Membership, email: str, role: Role) -> InvitedView:
        await self._require_place(uow, host.tenant_id, email)
        token = new_opaque_token()
        sent = await _take_sent_just_now(uow, host.tenant_id, email)
        letter = sent or {"token_hash": token_hash(token), "expires_at": uow.now + LIFETIME}
        offer = {"role": role, "invited_by": actor.user_id, "created_at": uow.now, **letter}
        invitation_id = await self._store(uow, tenant_id=host.tenant_id, email=email, offer=offer)
        if sent is None:
            inviter = await _user(uow, actor)
            self._mail.enqueue_letter(
                uow,
                "invitation",
                recipient=email,
                # Nothing is known of the invited person, so the inviter's language is the best guess.
                locale=inviter.locale,
                email=email,
                inviter=inviter.full_name,
                tenant=host.tenant.name,
                days=LIFETIME.days,
                link=f"{self._public_url}/invitations/{token}",
                token=token,
            )
        uow.audit(
            "invitation.sent",
            actor_id=actor.user_id,
            tenant_id=host.tenant_id,
            subject=("invitation", invitation_id),
            details={"email": email, "role": role},
        )
        return InvitedView(user_id=None, role=role, invitation_id=invitation_id)

    async def _store(self, uow: UnitOfWork, *, tenant_id: UUID, email: str, offer: Mapping[str, Any]) -> UUID:
        statement = (
            insert(Invitation)
            .values(id=uuid4(), tenant_id=tenant_id, email=email, state=InvitationState.PENDING, **offer)
            # Two that invite one address at once must not both fail or both stand.
            .on_conflict_do_update(
                index_elements=[Invitation.tenant_id, func.lower(Invitation.email)],
                index_where=text("state = 'pending'"),
                set_=dict(offer),
            )
            .returning(Invitation.id)
        )
        return (await uow.session.scalars(statement)).one()

    async def _require_place(self, uow: UnitOfWork, tenant_id: UUID, email: str) -> None:
        # The address's own invitation is renewed or closed by what follows, so it takes no place of its own.
        used = await members(uow, tenant_id) + await open_invitations(uow, tenant_id, but_for=email)
        await self._entitlements.require_room(uow, tenant_id, Limit.USERS, used=used)

    async def _settle_earlier(self, uow: UnitOfWork, tenant_id: UUID, email: str) -> None:
        # Whoever was invited, signed up alone and is now added has no use for the open invitation.
        earlier = await uow.session.scalars(
            select(Invitation)
            .where(
                Invitation.tenant_id == tenant_id,
                func.lower(Invitation.email) == func.lower(email),
                Invitation.state == InvitationState.PENDING,
            )
            .with_for_update()
        )
        for invitation in earlier:
            invitation.revoke()


def _hash(token: str) -> str:
    # No token of ours has other letters, and of bytes that are no text no hash can be made.
    if not token.isascii():
        raise InvitationNotFound
    return token_hash(token)


async def _take_sent_just_now(uow: UnitOfWork, tenant_id: UUID, email: str) -> dict[str, Any] | None:
    """Return what stands in the letter that is so young that no other is sent yet, if there is one; the tenant is held.

    An offer that was taken back meanwhile gives its letter away, for its token may lead to one offer only.
    """
    sent = await uow.session.scalar(
        select(Invitation)
        .where(
            Invitation.tenant_id == tenant_id,
            func.lower(Invitation.email) == func.lower(email),
            Invitation.state.in_((InvitationState.PENDING, InvitationState.REVOKED)),
            # When the letter was sent; an offer may be younger than the letter that it took over.
            Invitation.expires_at > uow.now + LIFETIME - LETTER_PAUSE,
        )
        .order_by(Invitation.created_at.desc(), Invitation.id)
        .limit(1)
        .with_for_update()
    )
    if sent is None:
        return None
    letter = {"token_hash": sent.token_hash, "expires_at": sent.expires_at}
    if sent.state is InvitationState.REVOKED:
        sent.token_hash = token_hash(new_opaque_token())
        await uow.session.flush()
    return letter


async def _was_added_just_now(uow: UnitOfWork, tenant_id: UUID, user_id: UUID) -> bool:
    # Somebody who was removed since has no other trace of the letter.
    found = await uow.session.scalar(
        select(AuditEntry.id)
        .where(
            AuditEntry.tenant_id == tenant_id,
            AuditEntry.action == "member.added",
            AuditEntry.subject_id == str(user_id),
            AuditEntry.created_at > uow.now - LETTER_PAUSE,
        )
        .limit(1)
    )
    return found is not None


async def _refuse_members(uow: UnitOfWork, tenant_id: UUID, email: str) -> None:
    """Raise AlreadyMember if an address is that of a member, whom hosts see anyway; of others nothing is read."""
    found = await uow.session.scalar(
        select(Membership.id)
        .join(User, User.id == Membership.user_id)
        .where(Membership.tenant_id == tenant_id, User.has_email(email))
    )
    if found is not None:
        raise AlreadyMember(email)


async def _is_member(uow: UnitOfWork, tenant_id: UUID, user_id: UUID) -> bool:
    found = await uow.session.scalar(
        select(Membership.id).where(Membership.tenant_id == tenant_id, Membership.user_id == user_id)
    )
    return found is not None


async def _user(uow: UnitOfWork, actor: Principal) -> User:
    return (await uow.session.scalars(select(User).where(User.id == actor.user_id))).one()
