"""A planted leak: a handler and a socket event that forget their tenant, behind either of the two walls alone.

Behind none they do leak, so that these tests are seen to look at something.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from pydantic import BaseModel
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.envelope import Envelope
from handlers.rest import Call, Router
from models.base import Base
from models.tenants import Invitation, InvitationState, Role, Tenant
from services.identity import require_tenant
from services.unit_of_work import TenantScope, UnitOfWork, UnitOfWorkFactory
from tests.handlers.frame import TENANT_ID, Client, open_door
from tests.support.listeners import Listener
from tests.support.people import RegisterCompany
from tests.support.running import Orchestrator
from tests.support.spine import everything, new_tenant
from tests.support.walls import walled

# What the walls do is the same in the cluster.
pytestmark = pytest.mark.embedded

WALLS = {
    "the first wall alone": {"first": True, "second": False},
    "the second wall alone": {"first": False, "second": True},
    "no wall": {"first": False, "second": False},
}
MEMBER = {"Authorization": "Bearer member"}


class Found(BaseModel):
    """The ids of invitations that a handler came upon."""

    ids: list[UUID]


async def list_all(uow: UnitOfWork, _: UUID) -> list[UUID]:
    """Read a table and forget whose."""
    return list(await uow.session.scalars(select(Invitation.id)))


async def get_by_id(uow: UnitOfWork, row_id: UUID) -> list[UUID]:
    """Trust the id in the path."""
    found = await uow.session.get(Invitation, row_id)
    return [found.id] if found else []


async def change_by_id(uow: UnitOfWork, row_id: UUID) -> list[UUID]:
    """Change whatever the path names."""
    statement = update(Invitation).where(Invitation.id == row_id).values(role=Role.ADMIN).returning(Invitation.id)
    return list(await uow.session.scalars(statement))


Leak = Callable[[UnitOfWork, UUID], Awaitable[list[UUID]]]
LEAKS: tuple[Leak, ...] = (list_all, get_by_id, change_by_id)

router = Router(tag="leaks", prefix="/leaks", counted=False)


def plant(leak: Leak) -> None:
    """Declare an endpoint as any other, but for what it forgets."""

    @router.post(f"/{leak.__name__}/{{row_id}}", answer=Envelope[Found])
    async def handler(call: Call, row_id: UUID) -> web.Response:
        """Answer what was found."""
        async with call.tenant_uow() as uow:
            found = await leak(uow, row_id)
        return call.ok(Found(ids=found))


for _leak in LEAKS:
    plant(_leak)


async def invite(engine: AsyncEngine, tenant_id: UUID) -> UUID:
    """Write an invitation of a tenant and return its id."""
    row_id = uuid4()
    row = {"id": row_id, "tenant_id": tenant_id, "email": f"{row_id.hex}@example.org", "token_hash": row_id.hex}
    async with everything(engine) as connection:
        await connection.execute(
            insert(Base.metadata.tables["invitations"]).values(
                **row, role=Role.USER, state=InvitationState.PENDING, expires_at=func.now()
            )
        )
    return row_id


@pytest.fixture
async def mine(engine: AsyncEngine) -> UUID:
    """An invitation of the tenant that the frame's member belongs to."""
    async with everything(engine) as connection:
        if await connection.scalar(select(Tenant.id).where(Tenant.id == TENANT_ID)) is None:
            tenants = Base.metadata.tables["tenants"]
            tenant = {"id": TENANT_ID, "name": "T", "slug": f"t-{TENANT_ID.hex}", "status": "active", "settings": {}}
            await connection.execute(insert(tenants).values(**tenant))
    return await invite(engine, TENANT_ID)


@pytest.fixture
async def theirs(engine: AsyncEngine) -> UUID:
    """An invitation of somebody else's tenant."""
    return await invite(engine, await new_tenant(engine))


@pytest.fixture(params=WALLS)
def wall(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def units(engine: AsyncEngine, wall: str) -> UnitOfWorkFactory:
    return walled(engine, **WALLS[wall])


@pytest.fixture
async def door(engine: AsyncEngine, units: UnitOfWorkFactory) -> AsyncIterator[Client]:
    async with open_door(engine, routers=[router], units=units) as client:
        yield client


@pytest.mark.parametrize("leak", [leak.__name__ for leak in LEAKS])
async def test_a_handler_that_forgets_its_tenant(door: Client, wall: str, leak: str, mine: UUID, theirs: UUID) -> None:
    found = set()
    for row_id in (mine, theirs):
        response = await door.post(f"/leaks/{leak}/{row_id}", headers=MEMBER)
        found |= {UUID(item) for item in (await response.json())["data"]["ids"]}

    assert mine in found
    assert (theirs in found) is (wall == "no wall")


@pytest.fixture
def planted(orchestrator: Orchestrator, units: UnitOfWorkFactory) -> Iterator[None]:
    """An event of the root namespace, as any other but for what it forgets."""

    async def forgetful(seat: object, payload: object) -> dict[str, object]:
        principal = seat.principal  # type: ignore[attr-defined] # a seat of the server's
        async with units(TenantScope(require_tenant(principal))) as uow:
            found = {row_id for leak in LEAKS for row_id in await leak(uow, UUID(str(payload)))}
        return {"ok": True, "ids": [str(row_id) for row_id in found]}

    handlers = orchestrator.house.sockets.sio.namespace_handlers["/"]._handlers
    handlers["leak"] = forgetful
    yield
    del handlers["leak"]


@pytest.mark.usefixtures("planted")
async def test_a_socket_event_that_forgets_its_tenant(
    engine: AsyncEngine, company: RegisterCompany, orchestrator: Orchestrator, wall: str
) -> None:
    owner, other = await company(), await company()
    mine, theirs = await invite(engine, owner.tenant_id), await invite(engine, other.tenant_id)
    listener = await Listener().connect(orchestrator.url, owner.token, "/")

    answers = [await listener.client.call("leak", str(row_id)) for row_id in (mine, theirs)]
    found = {row_id for answer in answers for row_id in answer["ids"]}
    await listener.close()

    assert str(mine) in found
    assert (str(theirs) in found) is (wall == "no wall")
