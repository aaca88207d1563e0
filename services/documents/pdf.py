"""A paper as a PDF file: made from the row whenever it is asked for, and the same bytes each time."""

from pathlib import Path
from typing import Final

from fpdf import FPDF
from fpdf.enums import TableBordersLayout, XPos, YPos
from fpdf.fonts import FontFace, TTFFont

from services.documents.lettering import in_letters
from services.documents.sheet import Pair, Party, Sheet

# Embedded, with Cyrillic: a file must look the same where no such font is installed.
_FONTS: Final = Path(__file__).resolve().parents[2] / "web" / "vendor" / "dejavu-fonts-ttf"
_FAMILY: Final = "DejaVu"
_MARGIN_MM: Final = 18
_GREY: Final = 95
_WIDTHS: Final = (46, 11, 16, 11, 16)
_ALIGN: Final = ("LEFT", "RIGHT", "RIGHT", "RIGHT", "RIGHT")


def render_pdf(sheet: Sheet) -> bytes:
    """Draw a paper on A4. It takes a tenth of a second of a processor, so call it in a thread."""
    pdf = _open(sheet)
    sheet = in_letters(sheet, _letters(pdf))
    pdf.set_font(_FAMILY, "B", 17)
    pdf.multi_cell(0, 9, sheet.title, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.ln(2)
    for fact in sheet.facts:
        _fact(pdf, fact)
    pdf.ln(5)
    _parties(pdf, sheet.issuer, sheet.buyer)
    pdf.ln(6)
    _lines(pdf, sheet)
    pdf.ln(4)
    for place, total in enumerate(sheet.totals, start=1):
        _total(pdf, total, strong=place == len(sheet.totals))
    return bytes(pdf.output())


def _open(sheet: Sheet) -> FPDF:
    pdf = FPDF(format="A4")
    pdf.set_margin(_MARGIN_MM)
    pdf.set_auto_page_break(True, margin=_MARGIN_MM)
    pdf.add_font(_FAMILY, "", _FONTS / "DejaVuSans.ttf")
    pdf.add_font(_FAMILY, "B", _FONTS / "DejaVuSans-Bold.ttf")
    pdf.set_title(sheet.title)
    pdf.set_author(sheet.issuer.name)
    pdf.set_lang(sheet.locale)
    # By default it would be the moment of drawing, and no two files alike.
    pdf.set_creation_date(sheet.issued_at)
    pdf.add_page()
    return pdf


def _letters(pdf: FPDF) -> set[int]:
    """Return the code points that each of the fonts has."""
    return set.intersection(*(set(font.cmap) for font in pdf.fonts.values() if isinstance(font, TTFFont)))


def _fact(pdf: FPDF, fact: Pair) -> None:
    label, value = fact
    pdf.set_font(_FAMILY, "", 9)
    pdf.set_text_color(_GREY)
    pdf.cell(45, 5, label)
    pdf.set_text_color(0)
    pdf.cell(0, 5, value, new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _parties(pdf: FPDF, *parties: Party) -> None:
    top, bottom, width = pdf.y, pdf.y, pdf.epw / len(parties)
    for place, party in enumerate(parties):
        pdf.set_xy(pdf.l_margin + place * width, top)
        for text, style, grey in (
            (party.label, "", _GREY),
            (party.name, "B", 0),
            *((line, "", 0) for line in party.lines),
        ):
            pdf.set_font(_FAMILY, style, 9)
            pdf.set_text_color(grey)
            pdf.multi_cell(width - 6, 5, text, align="LEFT", new_x=XPos.LEFT, new_y=YPos.NEXT)
        bottom = max(bottom, pdf.y)
    pdf.set_text_color(0)
    pdf.set_xy(pdf.l_margin, bottom)


def _lines(pdf: FPDF, sheet: Sheet) -> None:
    pdf.set_font(_FAMILY, "", 9)
    with pdf.table(
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        col_widths=_WIDTHS,
        headings_style=FontFace(emphasis="BOLD"),
        line_height=5,
        padding=1.5,
        text_align=_ALIGN,
    ) as table:
        for texts in (sheet.columns, *sheet.rows):
            table.row(texts)


def _total(pdf: FPDF, total: Pair, *, strong: bool) -> None:
    label, value = total
    pdf.set_font(_FAMILY, "B" if strong else "", 11 if strong else 9)
    pdf.cell(pdf.epw * 0.7, 6, label, align="RIGHT")
    pdf.cell(0, 6, value, align="RIGHT", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
