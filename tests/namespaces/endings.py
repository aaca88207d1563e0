"""What ends somebody's sockets or changes them, and how a socket that was ended looks to its client."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar, Literal
from uuid import UUID, uuid4

import jwt
from sqlalchemy import select

from core.tokens import new_opaque_token, token_hash
from models.tenants import Tenant
from models.users import OneTimeToken, TokenPurpose, User, UserSession
from namespaces.seats import Seat
from realtime.rooms import managers_room
from services.events import DomainEvent
from services.identity import Principal
from services.standing import Standing
from services.unit_of_work import PlatformScope, TenantScope, UnitOfWork
from tests.namespaces.wire import Wire
from tests.support.people import Person, address, request
from tests.support.running import Orchestrator
from tests.support.waiting import until

PLATFORM = PlatformScope("a test acts for the platform")
# What is promised: with Redis, and with the log alone.
PROMISE_S, PROMISE_WITHOUT_REDIS_S = 1.0, 2.0

Deed = Callable[[Orchestrator, Person, Person], Awaitable[Any]]


class ManagersTold(DomainEvent):
    """An event for owners and admins."""

    event: ClassVar[str] = "test:managers"
    namespace: ClassVar[Literal["/notifications"]] = "/notifications"

    number: int

    def room(self) -> str:
        return managers_room(self.tenant_id)


async def enter_all(instances: list[Orchestrator], person: Person, *namespaces: str, token: str = "") -> list[Wire]:
    """Connect somebody to namespaces of every instance."""
    wires = [await enter(one, person, space, token=token) for one in instances for space in namespaces or ("/",)]
    assert [wire.refusal for wire in wires] == [None] * len(wires)
    await until(lambda: all(wire.of("connected") for wire in wires))
    return wires


async def enter(server: Orchestrator, person: Person, namespace: str = "/", *, token: str = "") -> Wire:
    """Have somebody connect, if that is allowed."""
    return await Wire.enter(person.http, server.url, token or person.token, namespace)


def revoked(wire: Wire) -> str | None:
    """Return the code of a socket that was put out of its namespace, and told why, as the last it has heard."""
    if wire.names[-2:] != ["auth:revoked", "disconnect"]:
        return None
    code: str = wire.of("auth:revoked")[-1][0]["code"]
    return code


async def tell_managers(orchestrator: Orchestrator, person: Person, number: int) -> None:
    async with orchestrator.units(TenantScope(person.tenant_id)) as uow:
        uow.record(ManagersTold(tenant_id=person.tenant_id, number=number))


# What ends somebody's sockets. Each is given the server, the owner of the company and the one it is about.


async def log_out(_: Orchestrator, __: Person, guest: Person) -> None:
    assert (await guest.post("auth/logout"))[0] == 200


async def reset_password(server: Orchestrator, _: Person, guest: Person) -> None:
    token, now = new_opaque_token(), server.clock.now()
    async with server.units(PLATFORM) as uow:
        uow.session.add(
            OneTimeToken(
                user_id=guest.user_id,
                purpose=TokenPurpose.PASSWORD_RESET,
                token_hash=token_hash(token),
                created_at=now,
                expires_at=now + timedelta(hours=1),
            )
        )
    body = {"token": token, "new_password": guest.password}
    status, answer = await request(guest.http, "POST", address(guest.url, "auth/reset-password"), json=body)
    assert status == 200, answer


async def reuse_refresh_token(_: Orchestrator, __: Person, guest: Person) -> None:
    async def refresh(token: str) -> Any:
        url = address(guest.url, "auth/refresh")
        return await request(guest.http, "POST", url, json={"refresh_token": token})

    stolen = guest.refresh_token
    _, first = await refresh(stolen)
    assert (await refresh(first["data"]["refresh_token"]))[0] == 200
    assert (await refresh(stolen))[0] == 401


async def remove(_: Orchestrator, owner: Person, guest: Person) -> None:
    status, answer = await owner.delete(f"tenants/{owner.tenant_id}/users/{guest.user_id}")
    assert status == 200, answer


async def suspend(server: Orchestrator, _: Person, guest: Person) -> None:
    async with server.units(PLATFORM) as uow:
        tenant = await uow.session.get_one(Tenant, guest.tenant_id)
        await server.services.tenants.suspension.suspend(uow, slug=tenant.slug, reason="a test")


async def leave(_: Orchestrator, __: Person, guest: Person) -> None:
    status, answer = await guest.post(f"tenants/{guest.tenant_id}/leave")
    assert status == 200, answer


async def delete(_: Orchestrator, owner: Person, __: Person) -> None:
    status, answer = await owner.delete(f"tenants/{owner.tenant_id}")
    assert status == 200, answer


async def deactivate(server: Orchestrator, _: Person, guest: Person) -> None:
    async with server.units(PLATFORM) as uow:
        await server.services.platform.users.deactivate(
            uow, await superuser(uow), user_id=guest.user_id, reason="a test"
        )


async def superuser(uow: UnitOfWork) -> Principal:
    """Return the superuser of the seed, who has just proved who they are."""
    user = (await uow.session.scalars(select(User).where(User.has_email("admin@example.com")))).one()
    session = UserSession(
        id=uuid4(),
        user_id=user.id,
        current_jti=uuid4().hex,
        last_seen_at=uow.now,
        expires_at=uow.now + timedelta(hours=1),
        authenticated_at=uow.now,
    )
    uow.session.add(session)
    # The use case that follows looks it up by a statement of its own.
    await uow.session.flush()
    return Principal(user_id=user.id, session_id=session.id, tenant_id=None, role=None, is_superuser=True)


async def change_role(owner: Person, guest: Person, role: str) -> None:
    status, answer = await owner.patch(f"tenants/{owner.tenant_id}/users/{guest.user_id}", {"role": role})
    assert status == 200, answer


ENDINGS: dict[str, tuple[Deed, str, str]] = {
    "logout": (log_out, "SESSION_REVOKED", "TOKEN_REVOKED"),
    "password reset": (reset_password, "SESSION_REVOKED", "TOKEN_REVOKED"),
    "refresh token reused": (reuse_refresh_token, "SESSION_REVOKED", "TOKEN_REVOKED"),
    "removal": (remove, "TENANT_ACCESS_REVOKED", "PERMISSION_DENIED"),
    "leaving": (leave, "TENANT_ACCESS_REVOKED", "PERMISSION_DENIED"),
    "deletion": (delete, "TENANT_DELETED", "TENANT_DELETED"),
    "deactivation": (deactivate, "USER_INACTIVE", "TOKEN_REVOKED"),
    "suspension": (suspend, "TENANT_SUSPENDED", "TENANT_SUSPENDED"),
}


def principal_of(person: Person) -> Principal:
    """Return whom a person's token names."""
    claims = jwt.decode(person.token, options={"verify_signature": False})
    return Principal(
        user_id=UUID(claims["sub"]),
        session_id=UUID(claims["sid"]),
        tenant_id=UUID(claims["tenant_id"]),
        role=claims["role"],
        is_superuser=False,
    )


def standing_of(server: Orchestrator) -> Standing:
    return server.house.sockets._authority._standing


def seat_of(server: Orchestrator, wire: Wire) -> Seat:
    assert wire.answer is not None
    member = server.house.sockets.sio.manager.member(wire.answer["sid"], "/")
    seat = server.house.sockets.seats.of(member)
    assert seat is not None
    return seat
