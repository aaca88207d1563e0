"""API keys: made by a tenant's owners and admins for its machines, shown once, and ended at once everywhere."""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import delete, func, or_, select

from core.pagination import Page, PageRequest
from models.api_keys import ApiKey
from models.tenants import Role, Tenant
from models.users import User
from services.api_keys.errors import ApiKeyNotFound, ApiKeyRevoked, ExpiryInThePast, TooManyApiKeys
from services.api_keys.form import new_key
from services.api_keys.views import ApiKeyView, NewApiKeyView
from services.auth.notices import SecurityNotices
from services.closed_tenants import require_open
from services.identity import Principal, require_oneself, require_permission
from services.notifications import NotificationService
from services.permissions import KeyScope, Permission
from services.standing import sessions_ended
from services.step_up import require_recent_authentication
from services.tenants.last_owner import hold_places, role_of
from services.tenants.members import membership_of
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory
from services.verification import Verification

# For how long after its end a key is still listed; the audit keeps account of it for ever.
_KEEP_ENDED = timedelta(days=90)


class ApiKeyService:
    """The use cases around a tenant's keys; `max_keys` of them may work at once."""

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        notices: SecurityNotices,
        notifications: NotificationService,
        verification: Verification,
        max_keys: int,
    ) -> None:
        self._units = units
        self._notices = notices
        self._notifications = notifications
        self._verification = verification
        self._max_keys = max_keys

    async def create(
        self,
        uow: UnitOfWork,
        actor: Principal,
        *,
        tenant_id: UUID,
        name: str,
        scopes: Collection[KeyScope],
        expires_at: datetime | None,
    ) -> NewApiKeyView:
        """Make a key and tell it, this once; for owners and admins who have just proved who they are.

        The owners are told. Raises NoTenantAccess, RoleRequired, StepUpRequired, EmailUnverified, ExpiryInThePast,
        TooManyApiKeys, TenantDeleted and TenantSuspended.
        """
        await membership_of(uow, actor, tenant_id, Permission.KEYS_MANAGE)
        await require_recent_authentication(uow, actor)
        await self._verification.require(uow, actor)
        if expires_at is not None:
            # Sockets end by the second, as the tokens of people do; a key that lasted longer would let them in again.
            expires_at = expires_at.replace(microsecond=0)
        if expires_at is not None and expires_at <= uow.now:
            raise ExpiryInThePast
        # Held, so that two requests at once cannot both be the last that is allowed.
        await hold_places(uow, tenant_id)
        # Asked again under the lock: the caller may have lost the right while waiting for it.
        require_permission(await role_of(uow, tenant_id, actor.user_id), Permission.KEYS_MANAGE)
        await require_open(uow, tenant_id)
        if await self._count_open(uow, tenant_id) >= self._max_keys:
            raise TooManyApiKeys
        text = new_key()
        key = ApiKey(
            id=uuid4(),
            tenant_id=tenant_id,
            name=name,
            prefix=text.prefix,
            secret_hash=text.secret_hash,
            scopes=sorted(scope.value for scope in set(scopes)),
            created_by=actor.user_id,
            created_at=uow.now,
            expires_at=expires_at,
        )
        uow.session.add(key)
        uow.audit(
            "api_key.created",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("api_key", key.id),
            details={
                "name": name,
                "prefix": key.prefix,
                "scopes": key.scopes,
                "expires_at": expires_at.isoformat() if expires_at else None,
            },
        )
        await self._tell_owners(uow, key)
        return NewApiKeyView(**ApiKeyView.of(key, now=uow.now).model_dump(), key=text.whole)

    async def list(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, page: PageRequest) -> Page[ApiKeyView]:
        """Show the keys, newest first, and those that have ended still for a while; for owners and admins."""
        await membership_of(uow, actor, tenant_id, Permission.KEYS_MANAGE)
        total = await uow.session.scalar(select(func.count()).select_from(ApiKey).where(ApiKey.tenant_id == tenant_id))
        rows = await uow.session.scalars(
            select(ApiKey)
            .where(ApiKey.tenant_id == tenant_id)
            .order_by(ApiKey.created_at.desc(), ApiKey.id)
            .offset(page.offset)
            .limit(page.size)
        )
        return Page(items=[ApiKeyView.of(row, now=uow.now) for row in rows], total=total or 0, request=page)

    async def show(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, key_id: UUID) -> ApiKeyView:
        """Show one key; for owners and admins. Raises ApiKeyNotFound."""
        await membership_of(uow, actor, tenant_id, Permission.KEYS_MANAGE)
        return ApiKeyView.of(await _find(uow, tenant_id, key_id), now=uow.now)

    async def rename(
        self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, key_id: UUID, name: str
    ) -> ApiKeyView:
        """Give a key another name; for owners and admins. Raises ApiKeyNotFound."""
        await membership_of(uow, actor, tenant_id, Permission.KEYS_MANAGE)
        key = await _find(uow, tenant_id, key_id, for_change=True)
        if key.name != name:
            previous, key.name = key.name, name
            uow.audit(
                "api_key.renamed",
                actor_id=actor.user_id,
                tenant_id=tenant_id,
                subject=("api_key", key.id),
                details={"from": previous, "to": name},
            )
        return ApiKeyView.of(key, now=uow.now)

    async def revoke(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, key_id: UUID) -> None:
        """End a key at once, at REST and on open sockets; for owners and admins. Once more changes nothing.

        It asks for no step-up: whoever has seen a key leak must not be held up. Raises ApiKeyNotFound and
        Impersonated.
        """
        await membership_of(uow, actor, tenant_id, Permission.KEYS_MANAGE)
        require_oneself(actor)
        key = await _find(uow, tenant_id, key_id, for_change=True)
        if not key.revoke(uow.now):
            return
        uow.record(sessions_ended([key.id], code=ApiKeyRevoked.code))
        uow.audit(
            "api_key.revoked",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("api_key", key.id),
            details={"name": key.name, "prefix": key.prefix},
        )

    async def prune(self) -> int:
        """Forget keys that ended long ago; returns how many. For the scheduler."""
        async with self._units(PlatformScope("ended keys of every tenant are removed")) as uow:
            long_ago = uow.now - _KEEP_ENDED
            statement = (
                delete(ApiKey)
                .where(or_(ApiKey.revoked_at <= long_ago, ApiKey.expires_at <= long_ago))
                .returning(ApiKey.id)
                .execution_options(synchronize_session=False)
            )
            return len((await uow.session.scalars(statement)).all())

    async def _count_open(self, uow: UnitOfWork, tenant_id: UUID) -> int:
        count = await uow.session.scalar(
            select(func.count()).select_from(ApiKey).where(ApiKey.tenant_id == tenant_id, ApiKey.is_open(uow.now))
        )
        return count or 0

    async def _tell_owners(self, uow: UnitOfWork, key: ApiKey) -> None:
        tenant = (await uow.session.scalars(select(Tenant).where(Tenant.id == key.tenant_id))).one()
        creator = (await uow.session.scalars(select(User).where(User.id == key.created_by))).one()
        for owner_id in await self._notifications.members(uow, key.tenant_id, Role.OWNER):
            await self._notices.warn(
                uow,
                owner_id,
                "api_key_created",
                tenant_id=key.tenant_id,
                tenant=tenant.name,
                creator=creator.full_name,
                key_name=key.name,
                prefix=key.prefix,
                scopes=", ".join(key.scopes),
            )


async def _find(uow: UnitOfWork, tenant_id: UUID, key_id: UUID, *, for_change: bool = False) -> ApiKey:
    statement = select(ApiKey).where(ApiKey.id == key_id, ApiKey.tenant_id == tenant_id)
    if for_change:
        statement = statement.with_for_update()
    key = (await uow.session.scalars(statement)).one_or_none()
    if key is None:
        raise ApiKeyNotFound
    return key
