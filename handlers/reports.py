"""Reports for the platform's people and for owners, as JSON or as a CSV file."""

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from core.csv import BOM, encode_rows
from handlers.envelope import ListEnvelope
from handlers.rest import Access, Call, Handler, Router
from services.identity import RoleRequired, SuperuserRequired
from services.reports.views import CommissionView, MoneyView, PlanRecurringView, RecurringView, RevenueView
from services.unit_of_work import PlatformScope

router = Router(tag="reports", prefix="/api/v1", counted=False)

_SCOPE = PlatformScope("a report is about all tenants")
_MONTH = re.compile("2[0-9]{3}-(0[1-9]|1[0-2])")


def _first_day(value: object) -> object:
    """Return the first day of a month of this millennium that is given as `2026-11`."""
    if not isinstance(value, str):
        return value
    if not _MONTH.fullmatch(value):
        raise ValueError("is no month such as 2026-11")
    return datetime.strptime(value, "%Y-%m").date()  # noqa: DTZ007 - a month


Month = Annotated[
    date,
    BeforeValidator(_first_day),
    WithJsonSchema({"type": "string", "pattern": f"^{_MONTH.pattern}$"}),
]


class FormatQuery(BaseModel):
    """In which form: `csv` is a file for spreadsheets."""

    model_config = ConfigDict(populate_by_name=True)

    format: Literal["json", "csv"] = "json"


class MonthsQuery(FormatQuery):
    """From which month to which, as `2026-11` in UTC; the twelve up to now where nothing is said."""

    first: Month | None = Field(default=None, alias="from")
    last: Month | None = Field(default=None, alias="to")


def _report_on_all(path: str, answer: Any) -> Callable[[Handler], Handler]:
    """Declare a report about all tenants, which is for superusers."""
    return router.get(path, answer=answer, access=Access.USER, errors=(SuperuserRequired,), as_csv=True)


@_report_on_all("/super-admin/reports/recurring", answer=ListEnvelope[RecurringView])
async def report_recurring(call: Call, query: MonthsQuery) -> web.Response:
    """Report monthly recurring revenue, and how it came and went."""
    return await _months_of_all(call, query, RecurringView, call.context.services.reports.recurring)


@_report_on_all("/super-admin/reports/plans", answer=ListEnvelope[PlanRecurringView])
async def report_plans(call: Call, query: FormatQuery) -> web.Response:
    """Report what each plan brings in a month now."""
    async with call.uow(_SCOPE) as uow:
        lines = await call.context.services.reports.recurring_by_plan(uow, call.actor)
    return _answer(call, query, PlanRecurringView, lines)


@_report_on_all("/super-admin/reports/revenue", answer=ListEnvelope[RevenueView])
async def report_revenue(call: Call, query: MonthsQuery) -> web.Response:
    """Report what was paid and what went back, by month, provider, plan and currency."""
    return await _months_of_all(call, query, RevenueView, call.context.services.reports.revenue)


@_report_on_all("/super-admin/reports/commission", answer=ListEnvelope[CommissionView])
async def report_commission(call: Call, query: MonthsQuery) -> web.Response:
    """Report commission on merchants' orders, by month, provider and currency."""
    return await _months_of_all(call, query, CommissionView, call.context.services.reports.commission)


@router.get("/billing/report", answer=ListEnvelope[MoneyView], errors=(RoleRequired,), as_csv=True)
async def report_spending(call: Call, query: MonthsQuery) -> web.Response:
    """Report what the caller's tenant has paid, by month and currency; for owners and admins."""
    async with call.tenant_uow() as uow:
        lines = await call.context.services.reports.spending(uow, call.actor, first=query.first, last=query.last)
    return _answer(call, query, MoneyView, lines)


async def _months_of_all(
    call: Call, query: MonthsQuery, kind: type[BaseModel], report: Callable[..., Awaitable[Sequence[BaseModel]]]
) -> web.Response:
    """Answer a report of `ReportService` about months of all tenants."""
    async with call.uow(_SCOPE) as uow:
        lines = await report(uow, call.actor, first=query.first, last=query.last)
    return _answer(call, query, kind, lines)


def _answer(call: Call, query: FormatQuery, kind: type[BaseModel], lines: Sequence[Any]) -> web.Response:
    if query.format == "json":
        return call.many(list(lines))
    names = list(kind.model_fields)
    rows = [names, *([getattr(line, name) for name in names] for line in lines)]
    name = call.request.path.rpartition("/")[2]
    return web.Response(
        body=BOM.encode() + encode_rows(rows),
        content_type="text/csv",
        charset="utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )
