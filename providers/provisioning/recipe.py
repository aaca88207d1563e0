"""The recipe: which commands make up each job, written in YAML and checked in full when it is loaded.

A recipe is the operator's own file and is trusted; what it lets into a command is not, and is held to fixed
forms. The form is told by example in deploy/recipes/local.yml and deploy/recipes/erpnext.yml.
"""

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from providers.provisioning.contract import JobKind, StepPlan
from providers.provisioning.templates import MalformedTemplate, parse

SITE_VARIABLES: Final = frozenset(
    {
        "admin_email",
        "data_dir",
        "job_id",
        "limits",
        "plan",
        "project_dir",
        "python",
        "site_name",
        "site_url",
        "slug",
        "tenant_id",
    }
)

Place = tuple[str | int, ...]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
Argument = Annotated[str, StringConstraints(max_length=4_000)]
Arguments = Annotated[tuple[Argument, ...], Field(min_length=1, max_length=100)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class RecipeError(Exception):
    """The recipe cannot be used; the message names the file and, one a line, every place that is wrong."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EnvironmentEntry(_Part):
    """One variable that commands may see. Nothing else of the server's environment reaches them.

    With `value` it is fixed here; without, it is taken from the server's environment, where it may be missing
    only if there is a `default`. A `secret` never appears in any output. With `export: false` commands do not
    see it and only `{env.NAME}` can use it.
    """

    value: str | None = None
    default: str | None = None
    secret: bool = False
    export: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> "EnvironmentEntry":
        if self.value is not None and (self.default is not None or self.secret):
            raise ValueError("a fixed value can have no default and is no secret: it stands in this file")
        return self


class Input(_Part):
    """A value that whoever orders the job may hand in; the whole value must match `pattern`."""

    pattern: str
    default: str

    @model_validator(mode="after")
    def _default_matches(self) -> "Input":
        try:
            matches = re.fullmatch(self.pattern, self.default)
        except re.error as error:
            raise ValueError(f"the pattern is no regular expression: {error}") from error
        if not matches:
            raise ValueError("the default does not match the pattern")
        return self


class Compensation(_Part):
    """The command that undoes a step, also one that only began."""

    argv: Arguments
    timeout_s: Seconds
    only_if_exists: Text | None = None


class Step(_Part):
    """One command of a job.

    The step counts as done without running the command if the command `unless` exits with 0, or if the path
    `only_if_exists` does not exist; in the latter case it has no outputs. `retry_argv` replaces `argv` (and
    `unless`) when the site is claimed by this job and an earlier attempt may have left something behind, so a
    destructive "start over" can never meet a site that existed before. `prints` are the outputs the command
    must state itself, `sets` those that follow from templates. After one of the `permanent_exit_codes`, of the
    command or of its compensation, no further attempt helps.
    """

    name: Name
    title: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    argv: Arguments
    timeout_s: Seconds
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    weight: Annotated[int, Field(ge=1, le=1_000)] = 1
    permanent_exit_codes: frozenset[Annotated[int, Field(ge=1, le=255)]] = frozenset()
    unless: Arguments | None = None
    only_if_exists: Text | None = None
    retry_argv: Arguments | None = None
    prints: tuple[Name, ...] = ()
    sets: dict[Name, str] = Field(default_factory=dict)
    compensate: Compensation | None = None

    def plan(self) -> StepPlan:
        return StepPlan(
            name=self.name,
            title=self.title,
            weight=self.weight,
            max_attempts=self.max_attempts,
            timeout_s=self.timeout_s,
            compensates=self.compensate is not None,
        )


class Job(_Part):
    """The steps of one job kind.

    `claims` is the path whose absence proves that the job makes the site. Such a job undoes only what it
    made: its compensations do nothing to a site that was there before, nor to one that has gone live.
    """

    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=100)]
    inputs: dict[Name, Input] = Field(default_factory=dict)
    claims: Text | None = None

    @property
    def first_compensating_step(self) -> Step | None:
        """The step that is undone last, and with which a claim is given back."""
        return next((step for step in self.steps if step.compensate is not None), None)


class Recipe(_Part):
    """A recipe as loaded by `load_recipe`, which also checks what no single field can tell."""

    version: Literal[1]
    name: Name
    description: str = ""
    cwd: Text = "{data_dir}"
    environment: dict[EnvironmentName, EnvironmentEntry] = Field(default_factory=dict)
    secrets: tuple[Name, ...] = ()
    jobs: Annotated[dict[JobKind, Job], Field(min_length=1)]

    @property
    def hidden_variables(self) -> frozenset[str]:
        """The variables whose values are secrets: they are masked in all output and cannot be outputs."""
        secret_entries = {f"env.{name}" for name, entry in self.environment.items() if entry.secret}
        return frozenset(secret_entries | {f"secret.{name}" for name in self.secrets})


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises RecipeError, which names the file and line of all that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path}: a recipe is a mapping with `version`, `name` and `jobs`")
    problems = list(_repeated_keys(node, ()))
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        problems += [_Problem(tuple(item["loc"]), item["msg"]) for item in error.errors()]
        raise RecipeError(_told(path, node, problems)) from error
    problems += _misfits(recipe)
    if problems:
        raise RecipeError(_told(path, node, problems))
    return recipe


@dataclass(frozen=True, slots=True)
class _Problem:
    place: Place
    text: str
    line: int | None = None


def _told(path: Path, node: yaml.Node, problems: list[_Problem]) -> str:
    lines = (
        f"{path}:{problem.line or _line(node, problem.place)}: {'.'.join(map(str, problem.place))}: {problem.text}"
        for problem in problems
    )
    return "\n".join(lines)


def _line(node: yaml.Node, place: Place) -> int:
    """Return the line (from 1) of the deepest part of `place` that the file really has."""
    for key in place:
        child = _child(node, key)
        if child is None:
            break
        node = child
    return int(node.start_mark.line) + 1


def _child(node: yaml.Node, key: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
        items: list[yaml.Node] = node.value
        return items[key] if key < len(items) else None
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == str(key)), None)
    return None


def _repeated_keys(node: yaml.Node, place: Place) -> Iterator[_Problem]:
    # YAML keeps the last of two equal keys without a word, so a step written twice would silently vanish.
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            key = str(name.value)
            if key in seen:
                yield _Problem((*place, key), "is written twice", name.start_mark.line + 1)
            seen.add(key)
            yield from _repeated_keys(value, (*place, key))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated_keys(item, (*place, index))


def _misfits(recipe: Recipe) -> Iterator[_Problem]:
    """Find what only the whole recipe can tell: unknown variables, repeated names, claims not to be kept."""
    common = SITE_VARIABLES | {f"env.{name}" for name in recipe.environment}
    common |= {f"{kind}.{name}" for kind in ("secret", "secret_file") for name in recipe.secrets}
    yield from _unknown_variables(("cwd",), recipe.cwd, common)
    for kind, job in recipe.jobs.items():
        yield from _job_misfits(("jobs", kind), job, common, recipe.hidden_variables)


def _job_misfits(place: Place, job: Job, common: AbstractSet[str], hidden: AbstractSet[str]) -> Iterator[_Problem]:
    known = common | {f"input.{name}" for name in job.inputs}
    if job.claims is not None:
        yield from _unknown_variables((*place, "claims"), job.claims, common)
        if job.first_compensating_step is None:
            yield _Problem((*place, "claims"), "no step compensates, so the claim could never be given back")
    names: set[str] = set()
    for index, step in enumerate(job.steps):
        here = (*place, "steps", index)
        if step.name in names:
            yield _Problem((*here, "name"), f"another step of this job is named {step.name!r} too")
        names.add(step.name)
        yield from _step_misfits(here, step, known)
        yield from _output_misfits(here, step, known - hidden)
        if step.retry_argv and job.claims is None:
            yield _Problem((*here, "retry_argv"), "needs a job that `claims` the site")
        if step.only_if_exists is None:
            known |= {f"output.{name}" for name in (*step.prints, *step.sets)}


def _step_misfits(place: Place, step: Step, known: AbstractSet[str]) -> Iterator[_Problem]:
    for where, text in _templates(step):
        yield from _unknown_variables((*place, *where), text, known)


def _output_misfits(place: Place, step: Step, known: AbstractSet[str]) -> Iterator[_Problem]:
    printed = known | {f"output.{name}" for name in step.prints}
    for name, text in step.sets.items():
        yield from _unknown_variables((*place, "sets", name), text, printed)
    if step.prints and (step.unless or step.only_if_exists):
        yield _Problem((*place, "prints"), "a step that may be skipped cannot be relied on to print anything")
    if clash := set(step.prints) & set(step.sets):
        yield _Problem((*place, "sets"), f"{', '.join(sorted(clash))} cannot be both printed and set")


def _templates(step: Step) -> Iterator[tuple[Place, str]]:
    arguments = {"argv": step.argv, "unless": step.unless, "retry_argv": step.retry_argv}
    for key, argv in arguments.items():
        yield from (((key, index), text) for index, text in enumerate(argv or ()))
    if step.only_if_exists:
        yield ("only_if_exists",), step.only_if_exists
    if undo := step.compensate:
        # A compensation may also meet a step that never came to print, so it knows only what earlier steps
        # stated.
        yield from ((("compensate", "argv", index), text) for index, text in enumerate(undo.argv))
        if undo.only_if_exists:
            yield ("compensate", "only_if_exists"), undo.only_if_exists


def _unknown_variables(place: Place, text: str, known: AbstractSet[str]) -> Iterator[_Problem]:
    try:
        variables = parse(text).variables
    except MalformedTemplate as error:
        yield _Problem(place, str(error))
        return
    for name in variables:
        if name not in known:
            yield _Problem(place, f"unknown variable {{{name}}}; known here: {', '.join(sorted(known))}")


def missing_environment(recipe: Recipe, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that the recipe needs and the environment lacks."""
    return tuple(
        name
        for name, entry in recipe.environment.items()
        if entry.value is None and entry.default is None and name not in environment
    )
