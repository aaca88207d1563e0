"""JSON: money with its decimals, times in UTC, and nothing let in that could not be stored or told again."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import json

NUL = "\x00"

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters=NUL, exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcäя ", max_size=5), inner),
    max_leaves=20,
)


class TestDumps:
    @pytest.mark.parametrize(
        ("amount", "text"),
        [
            ("99", "99.00"),
            ("99.0", "99.00"),
            ("99.00", "99.00"),
            ("0.1", "0.10"),
            ("1.234", "1.234"),
            ("1.2300", "1.2300"),
            ("1E+3", "1000.00"),
            ("1E-7", "0.0000001"),
            ("-5", "-5.00"),
            ("0", "0.00"),
        ],
    )
    def test_money_is_a_number_with_its_decimals(self, amount: str, text: str) -> None:
        assert json.dumps({"amount": [Decimal(amount)]}) == b'{"amount":[%s]}' % text.encode()

    @pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity"])
    def test_what_is_no_number_is_never_written_as_one(self, amount: str) -> None:
        with pytest.raises((TypeError, ValueError)):
            json.dumps(Decimal(amount))

    def test_times_end_with_z(self) -> None:
        noon = datetime(2025, 11, 20, 12, 0, 0, 123_000, tzinfo=UTC)
        assert json.dumps(noon) == b'"2025-11-20T12:00:00.123000Z"'
        assert json.dumps(noon.replace(tzinfo=None)) == b'"2025-11-20T12:00:00.123000Z"'
        abroad = noon.astimezone(timezone(timedelta(hours=3)))
        assert datetime.fromisoformat(json.loads(json.dumps(abroad))) == noon

    def test_ids_dates_and_other_scripts(self) -> None:
        value = {"id": UUID(int=1), "day": date(2025, 11, 20), "name": "Ромашка"}
        expected = '{"id":"00000000-0000-0000-0000-000000000001","day":"2025-11-20","name":"Ромашка"}'
        assert json.dumps_text(value) == expected
        assert json.dumps(value) == expected.encode()

    @pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 2**70])
    def test_what_json_cannot_hold_is_a_type_error(self, value: object) -> None:
        with pytest.raises(TypeError):
            json.dumps({"value": value})


class TestLoads:
    @given(plain)
    def test_what_was_written_is_read_again(self, value: object) -> None:
        assert json.loads(json.dumps(value)) == value
        assert json.loads(json.dumps_text(value)) == value

    @pytest.mark.parametrize(
        "text",
        [
            r'"\u0000"',
            r'"a\u0000b"',
            r'{"\u0000":1}',
            r'{"a":{"b":["c",{"d":"\u0000"}]}}',
            r'[[[[[[[["\u0000"]]]]]]]]',
            r'{"a":[{"\u0000x":null}]}',
        ],
    )
    def test_nul_is_refused_at_any_depth(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"U\+0000"):
            json.loads(text)

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b" ",
            b"{",
            b"{'a':1}",
            b'{"a":1,}',
            b"NaN",
            b"Infinity",
            b"[1e400]",
            b'"\x00"',
            b"\xff",
            b'"\xed\xa0\x80"',
            rb'"\ud800"',
            b"{} {}",
            b"undefined",
        ],
    )
    def test_malformed_text_is_a_value_error(self, text: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            json.loads(text)

    @pytest.mark.parametrize("depth", [10, 100, 200, 254, 255, 500, 900, 995, 1000, 1023, 1024, 1025, 50_000])
    @pytest.mark.parametrize(("before", "after"), [("[", "]"), ('{"a":', "}")])
    def test_whatever_is_let_in_can_be_told_again(self, depth: int, before: str, after: str) -> None:
        """A body that is nested beyond what we can encode is refused as malformed and never fails later."""
        text = before * depth + "1" + after * depth
        try:
            value = json.loads(text)
        except ValueError:
            assert depth > 20, "people do nest a few objects"
        else:
            assert json.dumps_text(value) == text


class TestLoadsExact:
    def test_stored_money_keeps_its_digits(self) -> None:
        value = json.loads_exact(json.dumps({"amount": Decimal("99.00"), "count": 3}))
        assert (str(value["amount"]), value["count"]) == ("99.00", 3)

    @given(st.decimals(min_value=-(10**9), max_value=10**9, places=2))
    def test_money_survives_the_way_through_the_log(self, amount: Decimal) -> None:
        assert json.loads_exact(json.dumps(amount)) == amount


def test_nul_is_found_wherever_it_hides() -> None:
    json.refuse_nul({"a": ["b", {"c": ("d", 1, None, 2.5, True)}]})
    for value in (NUL, [NUL], {"a": NUL}, {NUL: 1}, ("x", [{"y": f"z{NUL}"}])):
        with pytest.raises(ValueError, match=r"U\+0000"):
            json.refuse_nul(value)
