"""CSV: what a spreadsheet and a strict reader both understand, and nothing that a spreadsheet would carry out."""

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.csv import BOM, encode_rows
from models.documents import DocumentKind

pytestmark = pytest.mark.embedded


def test_rows_end_and_are_quoted_as_rfc_4180_says() -> None:
    rows: list[list[object]] = [["a", 'say "b"', "c,d"], ["e\nf", "", None]]
    assert encode_rows(rows) == b'a,"say ""b""","c,d"\r\n"e\nf",,\r\n'


def test_values_are_written_for_machines() -> None:
    moment = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    row: list[object] = [Decimal(-10), Decimal("0.125"), moment, DocumentKind.INVOICE, 7]
    assert encode_rows([row]) == b"-10.00,0.125,2026-11-20T12:00:00Z,invoice,7\r\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r", "\n"])
def test_no_text_begins_like_a_formula(start: str) -> None:
    ((cell,),) = csv.reader(io.StringIO(encode_rows([[f"{start}HYPERLINK(1)"]]).decode(), newline=""))
    assert cell == f"'{start}HYPERLINK(1)"


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=2)))
def test_what_was_written_is_read_back(rows: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO(encode_rows(rows).decode(), newline="")))
    assert [[cell.replace("'", "") for cell in row] for row in read] == [
        [cell.replace("'", "") for cell in row] for row in rows
    ]


def test_a_text_is_no_formula_where_a_spreadsheet_splits_it() -> None:
    content = encode_rows([["x", 'a;=HYPERLINK("http://evil/";"x");b']]).decode()
    (row,) = csv.reader(io.StringIO(content, newline=""), delimiter=";")
    assert row[1].startswith("'=HYPERLINK")


@pytest.mark.parametrize("text", ["Smith, -5", "a;b", "a - b", "x=1; y=2", "one\ntwo"])
def test_a_text_that_begins_no_formula_is_left_alone(text: str) -> None:
    assert list(csv.reader(io.StringIO(encode_rows([[text]]).decode(), newline=""))) == [[text]]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from("=+-@\uff1d\uff0b\uff0d\uff20;,\t\r\n \"'a"), max_size=12), min_size=2)
    )
)
def test_no_cell_is_a_formula_wherever_a_spreadsheet_splits(delimiter: str, rows: list[list[str]]) -> None:
    content = io.StringIO(encode_rows(rows).decode(), newline="")
    cells = [cell for row in csv.reader(content, delimiter=delimiter) for cell in row]
    assert [cell for cell in cells if cell.lstrip(' "\t\r\n').startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))] == []


def test_the_mark_tells_a_spreadsheet_that_it_is_utf_8() -> None:
    assert BOM.encode() == b"\xef\xbb\xbf"
