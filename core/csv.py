"""CSV for people who open it in a spreadsheet: RFC 4180 in UTF-8 with a byte order mark, and no formulas.

A spreadsheet takes a cell that begins with one of a few characters for a formula, also when somebody chose it as a
name; an apostrophe before it makes it text again (OWASP, CSV injection). Where it splits at semicolons or tabs, as in
countries that write a decimal comma, it takes quotes within a line for text, and every part of a text becomes a cell.
"""

import csv
import io
import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from core import json

CONTENT_TYPE: Final = "text/csv; charset=utf-8"
# Excel reads a file without it in the code page of the machine.
BOM: Final = "\ufeff"

# A text of ours with a comma is quoted and stays whole where commas split, so a comma begins no cell. The full-width
# forms are those that spreadsheets in Japanese and Chinese read as the plain ones.
_CELL_STARTS: Final = re.compile(r"(\A(?=[\t\r\n])|(?:\A|[;\t\r\n])(?=[\s\"]*[=+\-@\uff1d\uff0b\uff0d\uff20]))")


def encode_rows(rows: Iterable[Iterable[object]]) -> bytes:
    """Return rows as CSV; amounts are plain numbers, times are RFC 3339 in UTC, None is empty.

    >>> encode_rows([["name", "=1+1"], [Decimal("-1"), None]]).decode().split()
    ["name,'=1+1", '-1.00,']
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return json.decimal_text(value)
    if isinstance(value, datetime):
        return json.dumps_text(value).strip('"')
    text = str(value.value if isinstance(value, Enum) else value)
    return _CELL_STARTS.sub(r"\1'", text)
