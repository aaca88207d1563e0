"""User rows: one per e-mail address, whatever its case, and one per phone, also when two people sign up at once."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from core.errors import DomainError
from models.users import EmploymentType, User
from services.auth.errors import EmailTaken
from services.phones.errors import PhoneTaken
from services.unit_of_work import UnitOfWork

_UNIQUE: Final[Mapping[str, type[DomainError]]] = {
    "uq_users_email_lower": EmailTaken,
    "uq_users_phone": PhoneTaken,
}


async def insert_user(
    uow: UnitOfWork,
    *,
    email: str,
    hashed_password: str,
    full_name: str,
    locale: str,
    is_superuser: bool = False,
    verified_at: datetime | None = None,
) -> User:
    """Write a user; raises EmailTaken, after waiting for whoever is signing up with the address right now.

    `verified_at` is when the address was proven, if it was.
    """
    values = {
        "email": email,
        "email_verified_at": verified_at,
        "hashed_password": hashed_password,
        "full_name": full_name,
        "is_superuser": is_superuser,
    }
    user = await _insert(uow, values, locale=locale, unique=func.lower(User.email))
    if user is None:
        raise EmailTaken
    return user


async def insert_phone_user(
    uow: UnitOfWork,
    *,
    phone: str,
    hashed_password: str | None,
    first_name: str | None,
    last_name: str | None,
    employment_type: EmploymentType | None,
    locale: str,
) -> User:
    """Write a user who is known by a proven phone; raises PhoneTaken, after waiting as `insert_user` does."""
    values = {
        "phone": phone,
        "hashed_password": hashed_password,
        "full_name": full_name_of(first_name, last_name),
        "first_name": first_name,
        "last_name": last_name,
        "employment_type": employment_type,
        "is_superuser": False,
    }
    user = await _insert(uow, values, locale=locale, unique=User.phone)
    if user is None:
        raise PhoneTaken
    return user


async def lock_account(uow: UnitOfWork, user_id: UUID) -> User:
    """Return a user whom nobody else changes until this unit of work is over; needs a PlatformScope."""
    # The strongest lock at once: addresses and phones are keys, and whoever is half-locked waits for others.
    statement = select(User).where(User.id == user_id).with_for_update()
    return (await uow.session.scalars(statement.execution_options(populate_existing=True))).one()


async def write_account(uow: UnitOfWork) -> None:
    """Write a changed address or phone now, so that the database says whether somebody has it.

    Raises EmailTaken and PhoneTaken.
    """
    try:
        await uow.session.flush()
    except IntegrityError as error:
        # The driver's own error, which names the rule that was broken, is behind SQLAlchemy's.
        taken = _UNIQUE.get(getattr(getattr(error.orig, "__cause__", None), "constraint_name", None) or "")
        if taken is None:
            raise
        raise taken from error


def full_name_of(first_name: str | None, last_name: str | None) -> str:
    """Join the names that are known; empty when none is."""
    return " ".join(name for name in (first_name, last_name) if name)


async def _insert(uow: UnitOfWork, values: Mapping[str, Any], *, locale: str, unique: Any) -> User | None:
    statement = (
        insert(User)
        .values(id=uuid4(), is_active=True, locale=locale, created_at=uow.now, updated_at=uow.now, **values)
        .on_conflict_do_nothing(index_elements=[unique])
        .returning(User)
    )
    return (await uow.session.scalars(statement)).one_or_none()
