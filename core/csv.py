"""CSV for people who open it in a spreadsheet: RFC 4180 in UTF-8 with a byte order mark, and no formulas.

A spreadsheet takes a cell that begins with one of a few characters for a formula, also when somebody chose it as a
name; an apostrophe before it makes it text again (OWASP, CSV injection).
"""

import csv
import io
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from core import json

CONTENT_TYPE: Final = "text/csv; charset=utf-8"
# Excel reads a file without it in the code page of the machine.
BOM: Final = "\ufeff"

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


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
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
