"""The numbers of our papers: without gaps within a series and a year, for all tenants together.

The counter's row is held until the commit, so whoever rolls back gives its numbers back, and whoever comes next waits.
That is why numbers are taken as a last step of the unit of work (`UnitOfWork.leave_for_last`): after every row that a
use case locks, and before the audit's chains and the tenants' streams, which every unit takes after this, never before.
"""

from dataclasses import dataclass

from sqlalchemy.dialects.postgresql import insert

from models.base import Base
from models.documents import DocumentSeries
from services.unit_of_work import UnitOfWork

_SERIES = Base.metadata.tables[DocumentSeries.__tablename__]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentNumber:
    """A place in a series; `text` is what people read."""

    series: str
    year: int
    place: int

    @property
    def text(self) -> str:
        return f"{self.series}-{self.year}-{self.place:06d}"


async def take_numbers(uow: UnitOfWork, series: str, *, count: int) -> list[DocumentNumber]:
    """Take the next numbers of a series in the year (UTC) of the unit of work; to be called in a last step."""
    year = uow.now.year
    statement = insert(_SERIES).values(series=series, year=year, last=count)
    statement = statement.on_conflict_do_update(
        index_elements=[_SERIES.c.series, _SERIES.c.year], set_={"last": _SERIES.c.last + count}
    )
    last: int = (await uow.session.execute(statement.returning(_SERIES.c.last))).scalar_one()
    return [DocumentNumber(series=series, year=year, place=last - count + step) for step in range(1, count + 1)]
