"""Templates put values where the recipe says, and never let a value become an option."""

import pytest

from providers.provisioning.templates import MalformedTemplate, UnfitValue, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{a}", "1"),
        ("--x={a}/{b}", "--x=1/2"),
        ("{{a}} {a}", "{a} 1"),
        ("{env.NAME}", "3"),
        ("-n", "-n"),
    ],
)
def test_values_are_put_in(text: str, expected: str) -> None:
    assert parse(text).render({"a": "1", "b": "2", "env.NAME": "3"}) == expected


def test_value_that_looks_like_a_template_stays_as_it_is() -> None:
    assert parse("{a}").render({"a": "{b}", "b": "secret"}) == "{b}"


@pytest.mark.parametrize("text", ["{", "}", "{}", "a{b", "a}b", "{a{b}}"])
def test_stray_braces_are_refused(text: str) -> None:
    with pytest.raises(MalformedTemplate):
        parse(text)


@pytest.mark.parametrize(("text", "value"), [("{a}", "-rf"), ("{a}", "a\nb"), ("x{a}", "\x00"), ("{a}", "\x1b[m")])
def test_unfit_values_are_refused(text: str, value: str) -> None:
    with pytest.raises(UnfitValue):
        parse(text).render({"a": value})


def test_dash_behind_the_recipes_own_text_is_a_value() -> None:
    assert parse("--password={a}").render({"a": "-x"}) == "--password=-x"


def test_empty_value_does_not_let_the_next_one_be_an_option() -> None:
    with pytest.raises(UnfitValue):
        parse("{a}{b}").render({"a": "", "b": "--force"})


def test_variable_without_a_value_is_named() -> None:
    with pytest.raises(KeyError, match="missing"):
        parse("{missing}").render({})
