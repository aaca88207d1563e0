"""Templates of a recipe: text with `{variables}` out of a fixed set; `{{` and `}}` stand for the braces."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class MalformedTemplate(ValueError):
    """A brace stands alone, or a variable has no name."""


class UnfitValue(ValueError):
    """A value would change what the command is told: it looks like an option or holds a control character."""


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template; see `parse`."""

    _parts: tuple[str | _Variable, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the variables, in the order of their appearance."""
        return tuple(part.name for part in self._parts if isinstance(part, _Variable))

    def render(self, values: Mapping[str, str]) -> str:
        """Put in the values. Raises UnfitValue, or KeyError for a variable that has no value.

        A value can never turn an argument into an option: only a dash the recipe itself wrote may stand
        first.
        """
        text = "".join(_fit(part, values) if isinstance(part, _Variable) else part for part in self._parts)
        if text.startswith("-") and isinstance(self._parts[0], _Variable):
            raise UnfitValue(f"the value of {{{self._parts[0].name}}} begins with '-' like an option")
        return text


def parse(text: str) -> Template:
    """Parse a template. Raises MalformedTemplate."""
    return Template(tuple(_parts(text)))


def _parts(text: str) -> Iterator[str | _Variable]:
    position = 0
    for token in _TOKEN.finditer(text):
        if token.start() > position:
            yield text[position : token.start()]
        position = token.end()
        if token[0] in {"{{", "}}"}:
            yield token[0][0]
        elif token[1]:
            yield _Variable(token[1])
        else:
            raise MalformedTemplate(f"{token[0]!r} names no variable; write {{{{ or }}}} for a brace itself")
    if position < len(text):
        yield text[position:]


def _fit(variable: _Variable, values: Mapping[str, str]) -> str:
    value = values[variable.name]
    if _CONTROL.search(value):
        raise UnfitValue(f"the value of {{{variable.name}}} holds a control character")
    return value
