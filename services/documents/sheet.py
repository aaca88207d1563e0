"""What stands on a paper, in its language: the same words for its page and for its PDF file."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from core.i18n import TEXTS
from services.documents.views import DocumentLineView, DocumentPartyView, DocumentView

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A party's heading, its name, and what else is known of it, a line each."""

    label: str
    name: str
    lines: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Texts in their order; the last of `totals` is what counts. `status` is as things stand, all else as issued."""

    locale: str
    title: str
    facts: Sequence[Pair]
    issuer: Party
    buyer: Party
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    totals: Sequence[Pair]
    status: str
    download: str
    issued_at: datetime


def sheet_of(view: DocumentView) -> Sheet:
    """Put a paper into words."""

    def say(key: str, **values: object) -> str:
        return TEXTS.text(f"documents.{key}", view.locale, **values)

    facts = [(say("label.issued_at"), _day(view.issued_at)), (say(f"moved.{view.reason.value}"), _day(view.moved_at))]
    if view.corrects_number is not None:
        facts.append((say("label.corrects"), view.corrects_number))
    money = [
        (say("label.net"), view.net),
        (say("label.tax", rate=f"{view.tax_rate:f}"), view.tax),
        (say("label.total"), view.total),
    ]
    return Sheet(
        locale=view.locale,
        title=f"{say(f'kind.{view.kind.value}')} {view.number}",
        facts=facts,
        issuer=_party(say("label.issuer"), view.issuer, tax_id=say("label.tax_id")),
        buyer=_party(say("label.buyer"), view.buyer, tax_id=say("label.tax_id")),
        columns=[say(f"column.{name}") for name in ("description", "quantity", "unit_price", "tax_rate", "total")],
        rows=[_row(line) for line in view.lines],
        totals=[(label, f"{_amount(value)} {view.currency}") for label, value in money],
        status=say(f"status.{view.status.value}"),
        download=say("label.download"),
        issued_at=view.issued_at,
    )


def _party(label: str, party: DocumentPartyView, *, tax_id: str) -> Party:
    lines = (party.address or "").splitlines()
    lines += [party.country or "", f"{tax_id}: {party.tax_id}" if party.tax_id else "", party.email or ""]
    return Party(label=label, name=party.name, lines=[line.strip() for line in lines if line.strip()])


def _row(line: DocumentLineView) -> Sequence[str]:
    period = ""
    if line.period_start is not None and line.period_end is not None:
        period = f"\n{_day(line.period_start)} – {_day(line.period_end)}"
    return (
        line.description + period,
        f"{line.quantity:f}",
        _amount(line.unit_price),
        f"{line.tax_rate:f} %",
        _amount(line.total),
    )


def _day(moment: datetime) -> str:
    return moment.date().isoformat()


def _amount(value: Decimal) -> str:
    # With the decimals of its currency, and a minus that is no hyphen.
    return f"{value:f}".replace("-", "−")
