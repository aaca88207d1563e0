"""docs/configuration.md, .env.example and docker-compose.yml say the same as the code."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from server.settings import ConfigurationError, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")

SETTINGS = frozenset(name.upper() for name in Settings.model_fields)
# A recipe may hand these to its commands as they are; no page needs to explain them.
USUAL_VARIABLES = frozenset({"PATH", "HOME", "USER", "LANG", "LC_ALL"})

Row = Mapping[str, str]


def tables(text: str) -> Iterator[Row]:
    """Yield the rows of every table, by column; a cell's code marks stay, for they tell a value from a sentence."""
    columns: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not columns:
            columns = cells
        elif not set(line) <= set("|-"):
            yield dict(zip(columns, cells, strict=True))


def named(column: str, *, beside: str) -> dict[str, Row]:
    """Return the rows of all tables that have these two columns, by name."""
    rows = [row for row in tables(PAGE) if column in row and beside in row]
    names = [row[column].strip("`") for row in rows]
    assert len(names) == len(set(names)), "a name is explained twice"
    return dict(zip(names, rows, strict=True))


def section(title: str) -> str:
    """Return the text of one section of the page."""
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def code(cell: str) -> str | None:
    """Return the value of a cell that is nothing but one value in code marks."""
    whole = re.fullmatch(r"`([^`]*)`", cell)
    return whole[1] if whole else None


def example_lines() -> dict[str, tuple[bool, str]]:
    """Return what .env.example says of each name: whether it is commented out, and its value."""
    found = re.findall(r"^(# )?([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE, re.MULTILINE)
    names = [name for _, name, _ in found]
    assert len(names) == len(set(names)), "a name stands twice in .env.example"
    return {name: (mark != "", value) for mark, name, value in found}


def compose_variables() -> dict[str, str | None]:
    """Return the variables that Compose itself replaces, with their defaults."""
    found = re.findall(r"(?<!\$)\$\{([A-Z_]+)(?::-([^}]*))?", COMPOSE)
    defaults: dict[str, str | None] = {}
    for name, default in found:
        defaults[name] = default or defaults.get(name)
    return defaults


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    # Away from any .env of whoever runs the tests.
    monkeypatch.chdir(tmp_path)


def assert_default(name: str, told: str) -> None:
    """Assert that `told`, given as a setting, is what the setting is without it."""
    field = name.lower()
    given, default = (getattr(load_settings(**values), field) for values in ({field: told}, {}))
    if isinstance(default, Path):
        given, default = ROOT / given, ROOT / default
    assert given == default, f"{name} is said to be {told!r} by default but is {default!r}"


def test_the_page_explains_every_setting_and_no_other() -> None:
    assert set(named("Setting", beside="Default")) == SETTINGS


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_the_page_tells_the_default(name: str) -> None:
    row = named("Setting", beside="Default")[name]
    told = code(row["Default"])
    fixed = Settings.model_fields[name.lower()].default
    computed = fixed is None or str(fixed) == "" or fixed == ()
    assert row["Meaning"]
    assert row["Default"]
    if computed:
        # Worked out from other settings, or absent: the page says so in words.
        assert told is None or "PUBLIC_URL" in told or "PORT" in told
    else:
        assert told is not None, f"the default of {name} is a value and belongs in code marks"
        assert_default(name, told)


def test_the_page_tells_what_production_requires() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(environment="production")
    required = set(re.findall(r"([A-Z_]+) is missing", str(refusal.value)))
    rows = named("Setting", beside="Required in production")
    assert {row["Required in production"] for row in rows.values()} == {"yes", "no"}
    assert {name for name, row in rows.items() if row["Required in production"] == "yes"} == required


def test_the_example_names_every_setting_and_no_other() -> None:
    compose_only = set(compose_variables()) - SETTINGS
    assert set(example_lines()) == SETTINGS | compose_only


def test_the_example_shows_the_defaults() -> None:
    compose = compose_variables()
    for name, (commented, value) in example_lines().items():
        if not commented:
            assert value == "", f"{name} must be filled in, so it has no value"
        elif compose.get(name):
            assert value == compose[name]
        elif value:
            assert_default(name, value)


def test_the_page_explains_what_compose_reads() -> None:
    rows = {row["Variable"].strip("`"): row for row in tables(section("Docker Compose only"))}
    compose = compose_variables()
    assert set(rows) == set(compose) - SETTINGS
    assert {name: code(row["Default"]) for name, row in rows.items()} == {name: compose[name] for name in rows}


def test_the_page_explains_what_commands_read() -> None:
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "server").rglob("*.py"))
    read = set(re.findall(r'os\.(?:environ\.get\(|environ\[|getenv\()"([A-Z_]+)"', sources))
    assert set(named("Variable", beside="Read by")) == read


def test_the_page_explains_what_recipes_read() -> None:
    documented = {
        row["Variable"].strip("`"): code(row["Default"])
        for row in tables(section("Commands and recipes"))
        if "Default" in row
    }
    taken: dict[str, str | None] = {}
    for file in (ROOT / "deploy" / "recipes").glob("*.yml"):
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))["environment"]
        taken |= {name: entry.get("default") for name, entry in entries.items() if "value" not in entry}
    expected = {name: default for name, default in taken.items() if name not in USUAL_VARIABLES | SETTINGS}
    assert documented == expected
