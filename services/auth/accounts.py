"""User rows: one per e-mail address, whatever its case, also when two people sign up at once."""

from uuid import uuid4

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from models.users import User
from services.auth.errors import EmailTaken
from services.unit_of_work import UnitOfWork


async def insert_user(
    uow: UnitOfWork,
    *,
    email: str,
    hashed_password: str,
    full_name: str,
    locale: str,
    is_superuser: bool = False,
) -> User:
    """Write a user; raises EmailTaken, after waiting for whoever is signing up with the address right now."""
    statement = (
        insert(User)
        .values(
            id=uuid4(),
            email=email,
            hashed_password=hashed_password,
            full_name=full_name,
            is_active=True,
            is_superuser=is_superuser,
            locale=locale,
            created_at=uow.now,
            updated_at=uow.now,
        )
        .on_conflict_do_nothing(index_elements=[func.lower(User.email)])
        .returning(User)
    )
    user = (await uow.session.scalars(statement)).one_or_none()
    if user is None:
        raise EmailTaken
    return user
