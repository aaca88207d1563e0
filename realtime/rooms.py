"""Room names, built only here, from typed ids."""

from uuid import UUID


def tenant_room(tenant_id: UUID) -> str:
    """Return the room of everybody who is signed in to a tenant."""
    return f"tenant:{tenant_id}"


def user_room(user_id: UUID) -> str:
    """Return the room of one user's sockets, whichever tenant they are signed in to (contract.md 7.2)."""
    return f"user:{user_id}"


def member_room(tenant_id: UUID, user_id: UUID) -> str:
    """Return the room of one user's sockets signed in to one tenant.

    The log delivers a user's events here: a socket of another tenant must not see numbers of this tenant's stream.
    """
    return f"tenant:{tenant_id}:user:{user_id}"


def managers_room(tenant_id: UUID) -> str:
    """Return the room of a tenant's owners and admins."""
    return f"tenant:{tenant_id}:managers"


def entitled_rooms(tenant_id: UUID, user_id: UUID, *, manager: bool) -> tuple[str, ...]:
    """Return the rooms whose logged events a user signed in to a tenant may see, live and later."""
    rooms = (tenant_room(tenant_id), member_room(tenant_id, user_id))
    return (*rooms, managers_room(tenant_id)) if manager else rooms
