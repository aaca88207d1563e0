"""Chats: which of a messenger's chats belongs to which phone. One phone has one chat in a messenger, and vice versa."""

from uuid import uuid4

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from core.phones import mask_phone
from models.messengers import MessengerContact
from services.unit_of_work import UnitOfWork


async def lock_phone(uow: UnitOfWork, phone: str) -> None:
    """Make whoever else would send a code to this phone, or bind it to a chat, wait until this unit of work is over."""
    # A phone has no row of its own to lock: most that codes are asked for are nobody's yet.
    await uow.session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"phone {phone}", 0))))


async def bind_chat(uow: UnitOfWork, *, messenger: str, address: str, phone: str) -> None:
    """Note that a chat's owner has shown this phone to be theirs; what was known of either is replaced.

    The caller has locked the phone.
    """
    await uow.session.execute(
        delete(MessengerContact).where(
            MessengerContact.messenger == messenger,
            MessengerContact.phone == phone,
            MessengerContact.address != address,
        )
    )
    values = {"phone": phone, "verified_at": uow.now}
    await uow.session.execute(
        insert(MessengerContact)
        .values(id=uuid4(), messenger=messenger, address=address, **values)
        .on_conflict_do_update(index_elements=[MessengerContact.messenger, MessengerContact.address], set_=values)
    )
    uow.audit(
        "messenger.bound",
        actor_id=None,
        tenant_id=None,
        subject=("phone", mask_phone(phone)),
        details={"messenger": messenger},
    )


async def forget_chat(uow: UnitOfWork, *, messenger: str, address: str) -> None:
    """Note that a chat is closed to the bot, so that codes take another road."""
    phones = await uow.session.scalars(
        delete(MessengerContact)
        .where(MessengerContact.messenger == messenger, MessengerContact.address == address)
        .returning(MessengerContact.phone)
    )
    for phone in phones:
        uow.audit(
            "messenger.unbound",
            actor_id=None,
            tenant_id=None,
            subject=("phone", mask_phone(phone)),
            details={"messenger": messenger},
        )
