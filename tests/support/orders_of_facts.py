"""Applying what providers tell in any order, within one transaction that leaves no trace."""

from collections.abc import Sequence

from providers.payments import Reading
from services.billing.apply import FactApplier
from services.billing.errors import NotThereYet
from services.unit_of_work import UnitOfWork


class Undo(Exception):
    """Leaves the unit of work without a trace."""


async def take_all(uow: UnitOfWork, applier: FactApplier, provider: str, readings: Sequence[Reading]) -> None:
    """Apply readings in their order, what has to wait again and again until all is in."""
    waiting = list(readings)
    while waiting:
        left = [reading for reading in waiting if not await _take_in(uow, applier, provider, reading)]
        assert len(left) < len(waiting), "nothing more can be applied"
        waiting = left


async def _take_in(uow: UnitOfWork, applier: FactApplier, provider: str, reading: Reading) -> bool:
    """Apply what one event means, or leave no trace of it; returns whether it could be applied."""
    try:
        async with uow.session.begin_nested():
            if reading.payment is None or await applier.measure(uow, provider, reading.payment):
                for fact in reading.facts:
                    await applier.apply(uow, fact)
                    await uow.session.flush()
    except NotThereYet:
        return False
    return True
