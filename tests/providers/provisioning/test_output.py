"""Output is bounded, free of terminal codes and of secrets, however it arrives."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.provisioning.output import (
    MASK,
    TRUNCATION_MARK,
    LineSplitter,
    OutputFilter,
    OutputLimits,
    RawLine,
    Redactor,
    clean_text,
)
from tests.providers.provisioning.support import Report


def split(*chunks: bytes, max_bytes: int = 1000) -> list[RawLine]:
    splitter = LineSplitter(max_bytes=max_bytes)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + list(splitter.flush())


def whole(text: bytes) -> RawLine:
    return RawLine(text, truncated=False)


def filtered(
    report: Report, *, secrets: tuple[str, ...] = (), prints: tuple[str, ...] = (), **limits: int
) -> OutputFilter:
    return OutputFilter(report, redactor=Redactor(secrets), limits=OutputLimits(**limits), prints=prints)


async def feed(taker: OutputFilter, *chunks: bytes) -> None:
    for line in split(*chunks, max_bytes=taker.max_line_bytes):
        await taker.take("stdout", line)


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\nb", [b"a", b"b"]),
        (b"\n\n", [b"", b""]),
        (b"10%\r50%\r100%\n", [b"100%"]),
        (b"10%\r50%\r", [b"50%"]),
        (b"a\r\r\nb\n", [b"a", b"b"]),
        (b"", []),
        (b"\r\n", [b""]),
    ],
)
def test_lines_are_seen_as_on_a_terminal(written: bytes, seen: list[bytes]) -> None:
    assert [line.data for line in split(written)] == seen


@given(
    text=st.binary(max_size=60).map(lambda raw: raw.translate(bytes(b"ab\r\n"[byte % 4] for byte in range(256)))),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    limit=st.integers(1, 8),
)
def test_chunk_borders_do_not_matter(text: bytes, cuts: list[int], limit: int) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[begin:end] for begin, end in pairwise(borders)]
    assert split(*chunks, max_bytes=limit) == split(text, max_bytes=limit)


def test_endless_line_is_held_only_up_to_the_limit() -> None:
    splitter = LineSplitter(max_bytes=10)
    for _ in range(1000):
        assert not list(splitter.feed(b"x" * 1000))
    assert list(splitter.feed(b"\n")) == [RawLine(b"x" * 10, truncated=True)]


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x00b\x07c\x7f", "abc"),
        ("tab\tstays", "tab\tstays"),
        ("\x1b[2K\x1b[1Gagain", "again"),
        ("cut \x1b[", "cut "),
        ("cut \x1b", "cut "),
    ],
)
def test_terminal_codes_are_removed(written: str, seen: str) -> None:
    assert clean_text(written) == seen


@pytest.mark.parametrize(
    "printed",
    [
        "p@ss w/rd",
        "p%40ss%20w%2Frd",
        "postgresql://u:p%40ss%20w%2Frd@h/db",
        "x p@ss w/rd y p@ss w/rd",
    ],
)
def test_secret_is_masked_in_the_forms_it_is_printed_in(printed: str) -> None:
    text = Redactor(["postgresql://u:p%40ss%20w%2Frd@h/db"]).redact(printed)
    assert "ss" not in text
    assert MASK in text


def test_each_line_of_a_long_secret_is_masked() -> None:
    redactor = Redactor(["-----BEGIN KEY-----\nabcdef\n-----END KEY-----\n"])
    assert redactor.redact("got abcdef") == f"got {MASK}"


def test_secret_that_begins_with_another_leaves_no_tail() -> None:
    assert Redactor(["abc", "abcdef"]).redact("abcdef") == MASK


def test_secret_in_json_is_masked() -> None:
    assert 'a\\"b' not in Redactor(['a"b']).redact('{"password": "a\\"b"}')


def test_empty_secret_masks_nothing() -> None:
    assert Redactor(["", " "]).redact("a b") == "a b"


@given(before=st.integers(0, 120), length=st.integers(5, 200))
async def test_secret_across_the_limit_of_a_line_is_not_seen(before: int, length: int) -> None:
    secret = ("xyzzy" * length)[:length]
    report = Report()
    taker = filtered(report, secrets=(secret,), line_chars=100)
    await feed(taker, ("-" * before + secret * 40 + "\n").encode())
    seen = report.text.removesuffix(TRUNCATION_MARK).replace(MASK, "")
    assert set(seen) <= {"-", "*"}, report.text


async def test_secret_split_by_a_terminal_code_is_masked() -> None:
    report = Report()
    await feed(filtered(report, secrets=("hunter22",)), b"hun\x1b[0mter22\n")
    assert report.text == MASK


async def test_statements_are_understood_and_not_logged() -> None:
    report = Report()
    taker = filtered(report, prints=("url",))
    await feed(taker, b"::progress 10\n::progress 40\n::output url=https://x?a=b\nlog\n::progress 100\n")
    assert report.fractions == [0.1, 0.4, 1.0]
    assert taker.outputs == {"url": "https://x?a=b"}
    assert report.text == "log"


@pytest.mark.parametrize(
    "line",
    ["::progress", "::progress 101", "::progress -1", "::progress ten", "::output other=1", " ::progress 5"],
)
async def test_what_is_no_statement_is_log_text(line: str) -> None:
    report = Report()
    taker = filtered(report, prints=("url",))
    await feed(taker, line.encode() + b"\n")
    assert report.lines == [("stdout", line)]
    assert (report.fractions, taker.outputs) == ([], {})


async def test_statements_count_only_on_standard_output() -> None:
    report = Report()
    await filtered(report).take("stderr", whole(b"::progress 40"))
    assert report.fractions == []


async def test_progress_only_rises() -> None:
    report = Report()
    await feed(filtered(report), b"::progress 40\n::progress 30\n::progress 40\n" * 100)
    assert report.fractions == [0.4]


async def test_long_line_is_cut_and_marked() -> None:
    report = Report()
    await feed(filtered(report, line_chars=10), b"0123456789abc\n")
    assert report.text == "0123456789" + TRUNCATION_MARK


async def test_flood_is_cut_but_still_listened_to() -> None:
    report = Report()
    taker = filtered(report, lines=3, prints=("url",))
    await feed(taker, b"line\n" * 50 + b"::output url=x\n::progress 90\n")
    await taker.close()
    assert [text for _, text in report.lines] == ["line"] * 3 + ["[output limit reached: 47 more lines not kept]"]
    assert taker.outputs == {"url": "x"}
    assert report.fractions == [0.9]


async def test_total_is_limited() -> None:
    report = Report()
    await feed(filtered(report, total_chars=25), b"0123456789\n" * 10)
    assert len(report.lines) == 2


async def test_undecodable_bytes_are_replaced() -> None:
    report = Report()
    await feed(filtered(report), b"\xff\xfe ok\n")
    assert report.text == "\ufffd\ufffd ok"


async def test_last_words_prefer_the_errors() -> None:
    taker = filtered(Report())
    await taker.take("stderr", whole(b"it broke"))
    await taker.take("stdout", whole(b"bye"))
    await taker.take("stderr", whole(b""))
    assert taker.last_words == "it broke"
