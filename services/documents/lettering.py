"""Letters that a font lacks, written by those that it has: a paper must not leave out whom it names."""

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace

from anyascii import anyascii

from services.documents.sheet import Pair, Party, Sheet

# What stands where even a transliteration is not known, so that the reader sees that there is something.
_UNKNOWN = "?"


def in_letters(sheet: Sheet, letters: Collection[int]) -> Sheet:
    """Return the paper as it can be printed with `letters`, code points; whatever is none of them is transliterated."""

    def printed(text: str) -> str:
        return "".join(char if ord(char) in letters or char == "\n" else _instead_of(char) for char in text)

    def all_of(texts: Sequence[str]) -> Sequence[str]:
        return [printed(text) for text in texts]

    def party(told: Party) -> Party:
        return replace(told, label=printed(told.label), name=printed(told.name), lines=all_of(told.lines))

    def pairs(told: Sequence[Pair]) -> Sequence[Pair]:
        return [(printed(label), printed(value)) for label, value in told]

    return replace(
        sheet,
        title=printed(sheet.title),
        facts=pairs(sheet.facts),
        issuer=party(sheet.issuer),
        buyer=party(sheet.buyer),
        columns=all_of(sheet.columns),
        rows=[all_of(row) for row in sheet.rows],
        totals=pairs(sheet.totals),
    )


def _instead_of(char: str) -> str:
    # Controls would be printed as nothing, and marks belong to the letter before them.
    kind = unicodedata.category(char)
    if kind in ("Cc", "Cf", "Cs"):
        return ""
    return anyascii(char) or ("" if kind.startswith("M") else _UNKNOWN)
