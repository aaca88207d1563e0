"""Phone numbers: however one is written it is one phone, and what is none is refused with a reason."""

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ErrorKind
from core.phones import PhoneFault, PhoneInvalid, mask_phone, parse_phone

RUSSIAN = st.integers(min_value=9_000_000_000, max_value=9_999_999_999).filter(
    lambda number: phonenumbers.is_valid_number(phonenumbers.parse(f"+7{number}"))
)


@pytest.mark.parametrize(
    "text",
    [
        "+79991234567",
        "79991234567",
        "89991234567",
        "9991234567",
        "+7 999 123-45-67",
        "8 (999) 123-45-67",
        "8(999)1234567",
        "(999) 123.45.67",
        "  +7 999 123 45 67 ",
        "+7-999-123-45-67",
    ],
)
def test_the_ways_to_write_one_russian_number_are_one_phone(text: str) -> None:
    assert parse_phone(text) == "+79991234567"


@pytest.mark.parametrize(
    ("text", "phone"),
    [
        ("+375 29 123-45-67", "+375291234567"),
        # From Russia the world is reached by 8-10.
        ("8 10 375 29 123-45-67", "+375291234567"),
        ("+1 202 555 0123", "+12025550123"),
        ("+44 7400 123456", "+447400123456"),
        ("8 701 123 45 67", "+77011234567"),
        ("+7 495 123-45-67", "+74951234567"),
        # Italy keeps the zero of its land lines.
        ("+39 06 698 12345", "+390669812345"),
    ],
)
def test_other_numbers(text: str, phone: str) -> None:
    assert parse_phone(text) == phone


def test_a_number_without_a_country_code_belongs_to_the_region() -> None:
    assert parse_phone("029 123 45 67", region="BY") == "+375291234567"
    with pytest.raises(PhoneInvalid):
        parse_phone("029 123 45 67")


@given(RUSSIAN, st.data())
def test_every_way_to_group_and_prefix_gives_the_same(number: int, data: st.DataObject) -> None:
    prefix = data.draw(st.sampled_from(["+7", "7", "8", ""]))
    separators = data.draw(st.lists(st.sampled_from(["", " ", "-", "."]), min_size=9, max_size=9))
    digits = str(number)
    written = prefix + digits[0] + "".join(sep + digit for sep, digit in zip(separators, digits[1:], strict=True))
    assert parse_phone(written) == f"+7{number}"


@given(st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)))
def test_what_was_read_is_read_again_as_itself_in_every_region(region: str) -> None:
    example = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    if example is None:
        return
    phone = parse_phone(phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164))
    assert parse_phone(phone) == phone
    assert parse_phone(phone, region=region) == phone
    assert len(phone) <= 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "()",
        "phone",
        "+7 999 123-45-6x",
        "1-800-FLOWERS",
        "+79991234567 ext. 5",
        "+79991234567;ext=5",
        "tel:+79991234567",
        "++79991234567",
        "+7999+1234567",
        "+7 999\t123 45 67",
        "+79991234567\n",
        "+7999123\r\n4567",
        "\x00+79991234567",
        "+7999\x001234567",
        # The same digits in other scripts, and a plus, a space and a hyphen that only look alike.
        "+7٩٩٩١٢٣٤٥٦٧",
        "＋７９９９１２３４５６７",
        "+७९९९१२३४५६७",
        "＋79991234567",
        "+7\u00a0999\u00a01234567",
        "+7 999 123\u201145\u201167",
        "+7999123456\u200b7",
        "\u202e+79991234567",
        "+7999123456\ud800",
        "telegram:anna",
    ],
    ids=ascii,
)
def test_what_is_not_written_as_a_phone_is_refused(text: str) -> None:
    with pytest.raises(PhoneInvalid) as refusal:
        parse_phone(text)
    assert refusal.value.fault is PhoneFault.NOT_WRITTEN_AS_A_PHONE


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("+7 999 123-45-6", PhoneFault.NO_SUCH_NUMBER),
        ("+7 999 123-45-678", PhoneFault.NO_SUCH_NUMBER),
        ("+70000000000", PhoneFault.NO_SUCH_NUMBER),
        ("+8 999 123 45 67", PhoneFault.NO_SUCH_NUMBER),
        ("375291234567", PhoneFault.NO_SUCH_NUMBER),
        ("+888 0123 4567", PhoneFault.NO_SUCH_NUMBER),
        ("112", PhoneFault.NO_SUCH_NUMBER),
        ("0000000000", PhoneFault.NO_SUCH_NUMBER),
        ("8 800 100-20-30", PhoneFault.NOT_PERSONAL),
        ("+7 809 123-45-67", PhoneFault.NOT_PERSONAL),
        ("+1 900 234 5678", PhoneFault.NOT_PERSONAL),
        ("9" * 33, PhoneFault.TOO_LONG),
        ("+7" + "9" * 1_000_000, PhoneFault.TOO_LONG),
        ("+7 999 123 45 67" + " " * 40 + "1", PhoneFault.TOO_LONG),
    ],
)
def test_what_is_nobodys_number_is_refused(text: str, fault: PhoneFault) -> None:
    with pytest.raises(PhoneInvalid) as refusal:
        parse_phone(text)
    assert refusal.value.fault is fault


def test_a_refusal_is_a_statement_for_doors_and_repeats_nothing() -> None:
    with pytest.raises(PhoneInvalid) as refusal:
        parse_phone("8 800 100-20-30")
    assert (refusal.value.kind, refusal.value.code) == (ErrorKind.INVALID, "PHONE_INVALID")
    assert refusal.value.details == {"reason": "not_personal"}
    assert "800" not in str(refusal.value)


@given(st.text(max_size=40))
def test_any_text_gives_a_phone_or_the_refusal(text: str) -> None:
    try:
        phone = parse_phone(text)
    except PhoneInvalid:
        return
    assert phone.startswith("+")
    assert phone[1:].isascii()
    assert phone[1:].isdigit()


@given(st.from_regex(r"\A\+?[0-9(][0-9 ().-]{0,30}[0-9]\Z"))
def test_anything_made_of_a_phones_characters_gives_a_phone_or_the_refusal(text: str) -> None:
    try:
        phone = parse_phone(text)
    except PhoneInvalid:
        return
    assert parse_phone(phone) == phone


@pytest.mark.parametrize(
    ("phone", "shown"), [("+79991234567", "**********67"), ("123", "*23"), ("12", "**"), ("1", "*"), ("", "")]
)
def test_logs_see_two_digits(phone: str, shown: str) -> None:
    assert mask_phone(phone) == shown
