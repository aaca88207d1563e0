"""Notifications: written with the fact they tell of, heard by their reader alone, read once."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from core.pagination import PageRequest
from models.base import Base
from models.notifications import NotificationType
from models.tenants import Membership, Role
from realtime.rooms import member_room
from services.identity import NoTenantInToken, Principal
from services.notifications import NotificationNotFound, NotificationService
from services.unit_of_work import PlatformScope, TenantScope, UnitOfWorkFactory
from tests.support.spine import Ears, everything, new_tenant, spine

PLATFORM = PlatformScope("a test looks at everything")
service = NotificationService()
Join = Callable[..., Awaitable[Principal]]


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def units(engine: AsyncEngine, ears: Ears) -> UnitOfWorkFactory:
    return spine(engine, ears)


@pytest.fixture
def join(engine: AsyncEngine, units: UnitOfWorkFactory) -> Join:
    """Makes a person and lets them join a tenant."""

    async def join(tenant_id: UUID, role: Role = Role.MEMBER, *, active: bool = True) -> Principal:
        user_id = uuid4()
        email = f"{user_id.hex}@example.test"
        person = {"id": user_id, "email": email, "full_name": "P", "hashed_password": "-"}
        async with everything(engine) as connection:
            users = Base.metadata.tables["users"]
            await connection.execute(insert(users).values(**person, is_active=active, is_superuser=False, locale="en"))
        async with units(PLATFORM) as uow:
            uow.session.add(Membership(tenant_id=tenant_id, user_id=user_id, role=role, joined_at=uow.now))
        return Principal(
            user_id=user_id,
            session_id=uuid4(),
            tenant_id=tenant_id,
            role=role,
            is_superuser=False,
        )

    return join


async def notify(units: UnitOfWorkFactory, tenant_id: UUID, *readers: Principal, title: str = "Title") -> list[UUID]:
    async with units(TenantScope(tenant_id)) as uow:
        rows = await service.notify(
            uow,
            tenant_id=tenant_id,
            user_ids=[reader.user_id for reader in readers],
            type=NotificationType.WARNING,
            title=title,
            message="Message",
            data={"n": 1},
            link="https://example.test/x",
        )
    return [row.id for row in rows]


async def test_each_reader_hears_of_their_own(
    engine: AsyncEngine, units: UnitOfWorkFactory, ears: Ears, join: Join
) -> None:
    tenant_id = await new_tenant(engine)
    first, second = await join(tenant_id), await join(tenant_id)

    ids = await notify(units, tenant_id, first, second)

    assert [event.room for event in ears.events] == [
        member_room(tenant_id, first.user_id),
        member_room(tenant_id, second.user_id),
    ]
    async with units(TenantScope(tenant_id)) as uow:
        page = await service.list(uow, first, PageRequest())
    [view] = page.items
    assert view.model_dump(mode="json") == {
        "id": str(ids[0]),
        "tenant_id": str(tenant_id),
        "user_id": str(first.user_id),
        "type": "warning",
        "title": "Title",
        "message": "Message",
        "data": {"n": 1},
        "link": "https://example.test/x",
        "read": False,
        "read_at": None,
        "created_at": view.model_dump(mode="json")["created_at"],
    }
    heard = ears.events[0].payload
    assert heard.items() <= view.model_dump(mode="json").items(), "the event and the list tell the same"


async def test_a_rolled_back_fact_notifies_nobody(
    engine: AsyncEngine, units: UnitOfWorkFactory, ears: Ears, join: Join
) -> None:
    tenant_id = await new_tenant(engine)
    reader = await join(tenant_id)

    with pytest.raises(ZeroDivisionError):
        async with units(TenantScope(tenant_id)) as uow:
            await service.notify(
                uow,
                tenant_id=tenant_id,
                user_ids=[reader.user_id],
                type=NotificationType.INFO,
                title="t",
                message="m",
            )
            raise ZeroDivisionError

    async with units(TenantScope(tenant_id)) as uow:
        assert (await service.list(uow, reader, PageRequest())).total == 0
    assert ears.events == []


async def test_reading(engine: AsyncEngine, units: UnitOfWorkFactory, join: Join) -> None:
    """The first reading counts; lists and counts follow."""
    tenant_id = await new_tenant(engine)
    reader, other = await join(tenant_id), await join(tenant_id)
    [one] = await notify(units, tenant_id, reader, title="one")
    await notify(units, tenant_id, reader, title="two")
    await notify(units, tenant_id, reader, other, title="three")

    async with units(TenantScope(tenant_id)) as uow:
        read = await service.mark_read(uow, reader, one)
    async with units(TenantScope(tenant_id)) as uow:
        again = await service.mark_read(uow, reader, one)
    assert read.read
    assert read.read_at == again.read_at

    async with units(TenantScope(tenant_id)) as uow:
        everything = await service.list(uow, reader, PageRequest(page=1, size=2))
        unread = await service.list(uow, reader, PageRequest(), unread=True)
        done = await service.list(uow, reader, PageRequest(), unread=False)
        assert (await service.unread(uow, reader)).count == 2
    assert ([item.title for item in everything.items], everything.total, everything.pages) == (["three", "two"], 3, 2)
    assert [item.title for item in unread.items] == ["three", "two"]
    assert [item.title for item in done.items] == ["one"]

    async with units(TenantScope(tenant_id)) as uow:
        assert (await service.mark_all_read(uow, reader)).count == 2
    async with units(TenantScope(tenant_id)) as uow:
        assert (await service.mark_all_read(uow, reader)).count == 0
        assert (await service.unread(uow, reader)).count == 0
        assert (await service.unread(uow, other)).count == 1, "others have still to read theirs"


async def test_what_is_another_readers_does_not_exist(
    engine: AsyncEngine, units: UnitOfWorkFactory, join: Join
) -> None:
    tenant_id, elsewhere = await new_tenant(engine), await new_tenant(engine)
    reader, colleague, stranger = await join(tenant_id), await join(tenant_id), await join(elsewhere)
    [mine] = await notify(units, tenant_id, reader)

    for actor, scope in ((colleague, tenant_id), (stranger, elsewhere)):
        for wanted in (mine, uuid4()):
            async with units(TenantScope(scope)) as uow:
                with pytest.raises(NotificationNotFound):
                    await service.mark_read(uow, actor, wanted)
    async with units(TenantScope(tenant_id)) as uow:
        assert (await service.unread(uow, reader)).count == 1


async def test_a_token_without_a_tenant_reads_nothing(
    engine: AsyncEngine, units: UnitOfWorkFactory, join: Join
) -> None:
    tenant_id = await new_tenant(engine)
    reader = await join(tenant_id)
    [mine] = await notify(units, tenant_id, reader)
    nowhere = Principal(
        user_id=reader.user_id,
        session_id=uuid4(),
        tenant_id=None,
        role=None,
        is_superuser=False,
    )

    async with units(PLATFORM) as uow:
        with pytest.raises(NoTenantInToken):
            await service.mark_read(uow, nowhere, mine)


async def test_reading_twice_at_once_counts_once(engine: AsyncEngine, units: UnitOfWorkFactory, join: Join) -> None:
    tenant_id = await new_tenant(engine)
    reader = await join(tenant_id)
    [mine] = await notify(units, tenant_id, reader)

    async def read() -> object:
        async with units(TenantScope(tenant_id)) as uow:
            return (await service.mark_read(uow, reader, mine)).read_at

    assert len(set(await asyncio.gather(*(read() for _ in range(5))))) == 1


async def test_who_is_told_by_role(engine: AsyncEngine, units: UnitOfWorkFactory, join: Join) -> None:
    tenant_id, elsewhere = await new_tenant(engine), await new_tenant(engine)
    owner = await join(tenant_id, Role.OWNER)
    admin = await join(tenant_id, Role.ADMIN)
    await join(tenant_id, Role.MEMBER)
    await join(tenant_id, Role.ADMIN, active=False)
    await join(elsewhere, Role.OWNER)

    async with units(PLATFORM) as uow:
        assert await service.members(uow, tenant_id, Role.OWNER, Role.ADMIN) == [owner.user_id, admin.user_id]
        assert await service.members(uow, tenant_id, Role.BUYER) == []
