"""Tariffs: what the platform's public pages say of prices (contract.md 3.7). What is really sold are plans."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from models.platform import PlatformContent
from services.identity import Principal, require_superuser
from services.platform.errors import TariffNotFound
from services.platform.views import TariffListView, TariffView
from services.unit_of_work import UnitOfWork

_KEY: Final = "pricing"
_LIST: Final = "tariffs"
# What the second ancestor showed before anybody had stored anything.
_DEFAULTS: Final = tuple(
    TariffView(id=id_, name=name, price=price, period="месяц", popular=popular)
    for id_, name, price, popular in (
        ("start", "Старт", "0", False),
        ("growth", "Профессионал", "2990", True),
        ("premium", "Бизнес", "7990", False),
    )
)


class Tariffs:
    """The use cases of superusers about tariffs; all need a PlatformScope and raise SuperuserRequired."""

    async def list(self, uow: UnitOfWork, actor: Principal) -> TariffListView:
        """Show the tariffs: those that are stored, else the first ones."""
        require_superuser(actor)
        stored = await uow.session.scalar(select(PlatformContent).where(PlatformContent.key == _KEY))
        return TariffListView(tariffs=_read(stored.content if stored is not None else {}))

    async def change(self, uow: UnitOfWork, actor: Principal, *, tariff_id: str, changes: Mapping[str, Any]) -> None:
        """Change fields of a tariff; raises TariffNotFound."""
        require_superuser(actor)
        stored = await self._held(uow)
        listed = _listed(stored.content)
        known = ((place, tariff) for place, item in enumerate(listed) if (tariff := _tariff(item)) is not None)
        place, former = next(((place, tariff) for place, tariff in known if tariff.id == tariff_id), (0, None))
        if former is None:
            raise TariffNotFound
        # What a master wrote beside, and what is no tariff, stays as it is.
        listed[place] = {**listed[place], **changes}
        stored.content = {**stored.content, _LIST: listed}
        stored.updated_at, stored.updated_by = uow.now, actor.user_id
        uow.audit(
            "tariff.changed",
            actor_id=actor.user_id,
            tenant_id=None,
            subject=("tariff", tariff_id),
            details={"before": former.model_dump(include=set(changes)), "after": dict(changes)},
        )

    async def _held(self, uow: UnitOfWork) -> PlatformContent:
        """Return the stored tariffs, locked, so that of two changes at once none is lost."""
        await uow.session.execute(
            insert(PlatformContent)
            .values(key=_KEY, content={}, updated_at=uow.now)
            .on_conflict_do_nothing(index_elements=[PlatformContent.key])
        )
        held = await uow.session.scalars(select(PlatformContent).where(PlatformContent.key == _KEY).with_for_update())
        return held.one()


def _read(content: Mapping[str, Any]) -> list[TariffView]:
    return [tariff for item in _listed(content) if (tariff := _tariff(item)) is not None]


def _listed(content: Mapping[str, Any]) -> list[Any]:
    """Return what stands where the tariffs should, else the first ones."""
    listed = content.get(_LIST)
    return list(listed) if isinstance(listed, list) else [tariff.model_dump() for tariff in _DEFAULTS]


def _tariff(item: object) -> TariffView | None:
    try:
        return TariffView.model_validate(item)
    except ValidationError:
        # Masters write this content freely; what is no tariff is not shown as one.
        return None
