"""The PDF file of a paper: its words can be read back, in Cyrillic too, and it is the same file each time."""

import io
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pypdf
import pytest

from models.documents import DocumentKind, DocumentReason
from services.documents.pdf import render_pdf
from services.documents.sheet import sheet_of
from services.documents.views import DocumentLineView, DocumentPartyView, DocumentStatus, DocumentView

pytestmark = pytest.mark.embedded

NOBODY = UUID(int=0)
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


def line(**values: Any) -> DocumentLineView:
    told: dict[str, Any] = {
        "description": "Тариф «Professional», один месяц",
        "quantity": "1",
        "unit_price": "49.99",
        "tax_rate": "20",
        "net": "41.66",
        "tax": "8.33",
        "total": "49.99",
        "period_start": "2026-11-20T12:00:00+00:00",
        "period_end": "2026-12-20T12:00:00+00:00",
    }
    return DocumentLineView.model_validate({**told, **values})


def party(**values: Any) -> DocumentPartyView:
    told = {"name": "ООО «Ёлка & Ко»", "address": "ул. Щукина, 1\nМосква", "tax_id": "77012", "country": "RU"}
    return DocumentPartyView.model_validate({**told, "email": "buh@example.org", **values})


def view(**values: Any) -> DocumentView:
    told: dict[str, Any] = {
        "id": NOBODY,
        "tenant_id": NOBODY,
        "number": "INV-2026-000042",
        "kind": DocumentKind.INVOICE,
        "reason": DocumentReason.PAYMENT,
        "status": DocumentStatus.PAID,
        "payment_id": NOBODY,
        "movement_id": NOBODY,
        "corrects_id": None,
        "corrects_number": None,
        "currency": "USD",
        "tax_rate": Decimal(20),
        "net": Decimal("41.66"),
        "tax": Decimal("8.33"),
        "total": Decimal("49.99"),
        "lines": [line()],
        "issuer": party(name="Platform", address=None, tax_id=None, country=None, email=None),
        "buyer": party(),
        "locale": "ru",
        "moved_at": NOW,
        "issued_at": NOW,
        "url": "http://localhost/invoices/x",
        "pdf_url": "http://localhost/invoices/x/pdf",
    }
    return DocumentView.model_validate({**told, **values})


def words(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages)


def test_a_russian_invoice_can_be_read_back() -> None:
    text = words(render_pdf(sheet_of(view())))
    for shown in (
        *("Счёт INV-2026-000042", "Дата выставления 2026-11-20", "Дата оплаты 2026-11-20", "Продавец\nPlatform"),
        *("ООО «Ёлка & Ко»", "ул. Щукина, 1\nМосква\nRU", "ИНН / налоговый номер: 77012", "buh@example.org"),
        *("Тариф «Professional», один месяц\n2026-11-20 – 2026-12-20 1 49.99 20 % 49.99",),
        *("Без налога 41.66 USD", "Налог 20 % 8.33 USD", "Итого 49.99 USD"),
    ):
        assert shown in text


def test_an_english_credit_note_names_what_it_corrects() -> None:
    note = view(
        kind=DocumentKind.CREDIT_NOTE,
        reason=DocumentReason.REFUND,
        corrects_id=NOBODY,
        corrects_number="INV-2026-000041",
        total=Decimal("-49.99"),
        locale="en",
    )
    text = words(render_pdf(sheet_of(note)))
    for shown in ("Credit note INV-2026-000042", "Refunded on 2026-11-20", "Corrects INV-2026-000041", "−49.99 USD"):
        assert shown in text


def test_a_file_is_the_same_each_time_and_another_for_another_paper() -> None:
    first = render_pdf(sheet_of(view()))
    assert first == render_pdf(sheet_of(view()))
    assert first != render_pdf(sheet_of(view(number="INV-2026-000043")))


def test_the_fonts_are_in_the_file() -> None:
    (page,) = pypdf.PdfReader(io.BytesIO(render_pdf(sheet_of(view())))).pages
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]  # type: ignore[index]
    assert len(fonts) == 2
    for font in fonts:
        (descendant,) = font["/DescendantFonts"]
        assert "/FontFile2" in descendant.get_object()["/FontDescriptor"]


@pytest.mark.parametrize(
    "name",
    ["W" * 255, "a " * 127, "名前 🎉 عربي", "<b>**x**</b> --y-- {z} %s\\n", "\u202e\u200b\u2028\x07\x1b\ufffd", "’"],
)
def test_no_name_is_too_odd(name: str) -> None:
    content = render_pdf(
        sheet_of(view(buyer=party(name=name, address="\n".join(["W" * 120] * 8)), lines=[line(description=name)]))
    )
    assert "49.99 USD" in words(content)


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("北京公司", "BeiJingGongSi"),
        ("김철수", "GimCheolSu"),
        ("สยาม", "syam"),
        ("राम", "ram"),
        ("ООО «Ёлка» 北京", "ООО «Ёлка» BeiJing"),
        ("\ue000 Ltd", "? Ltd"),
    ],
)
def test_letters_that_the_font_lacks_are_written_in_latin(written: str, printed: str) -> None:
    paper = view(buyer=party(name=written, address=f"{written}, 1"), lines=[line(description=written)])
    text = words(render_pdf(sheet_of(paper)))
    assert [text.count(f"{start}{printed}{end}") for start, end in (("\n", "\n"), ("\n", ", 1\n"))] == [2, 1]
    assert written in sheet_of(paper).buyer.name


def test_many_lines_go_on_over_several_pages() -> None:
    content = render_pdf(sheet_of(view(lines=[line(description=f"No. {number}") for number in range(40)])))
    assert len(pypdf.PdfReader(io.BytesIO(content)).pages) > 1
    text = words(content)
    assert all(f"No. {number}\n" in text for number in range(40))


def test_a_currency_without_a_minor_unit_is_shown_without_one() -> None:
    yen = line(unit_price="120", net="100", tax="20", total="120")
    text = words(render_pdf(sheet_of(view(currency="JPY", total=Decimal(120), lines=[yen]))))
    assert "Итого 120 JPY" in text
