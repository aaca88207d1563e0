"""A recipe is checked in full when it is loaded, and the message leads to the place."""

from pathlib import Path

import pytest

from providers.provisioning.contract import JOB_KINDS
from providers.provisioning.recipe import RecipeError, load_recipe
from tests.providers.provisioning.support import RECIPES

HEAD = """\
version: 1
name: test
environment:
  PATH: {}
  TOKEN: {secret: true}
secrets: [admin_password]
jobs:
  create_site:
"""
STEP = """\
    steps:
      - name: one
        title: One
        timeout_s: 5
        argv: [echo, "{site_name}"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["local", "erpnext"])
def test_shipped_recipes_know_every_job(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yml")
    assert recipe.name == name
    assert set(recipe.jobs) == set(JOB_KINDS)


def test_good_recipe_is_taken(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, HEAD + STEP)).jobs["create_site"].steps[0].max_attempts == 3


@pytest.mark.parametrize(
    ("tail", "line", "message"),
    [
        (STEP + "        colour: red\n", 14, r"steps\.0\.colour: Extra inputs"),
        (STEP.replace("argv: [echo, ", "argv: [echo, {nope}, "), 13, r"argv\.1: "),
        (
            STEP.replace("{site_name}", "{sitename}"),
            13,
            r"argv\.1: unknown variable \{sitename\}; known here: .*site_name",
        ),
        (STEP.replace("{site_name}", "{env.HOME}"), 13, r"unknown variable \{env\.HOME\}"),
        (STEP.replace("{site_name}", "{secret.other}"), 13, r"unknown variable \{secret\.other\}"),
        (STEP.replace("{site_name}", "{output.url}"), 13, r"unknown variable \{output\.url\}"),
        (STEP.replace("{site_name}", "{input.id}"), 13, r"unknown variable \{input\.id\}"),
        (STEP.replace("{site_name}", "{"), 13, r"names no variable"),
        (STEP.replace("timeout_s: 5", "timeout_s: 0"), 12, r"timeout_s: Input should be greater than 0"),
        (STEP.replace("timeout_s: 5", "timeout_s: soon"), 12, r"timeout_s: Input should be a valid number"),
        (STEP.replace("        timeout_s: 5\n", ""), 10, r"timeout_s: Field required"),
        (STEP.replace('[echo, "{site_name}"]', '"echo {site_name}"'), 13, r"argv: Input should be a valid tuple"),
        (STEP.replace('[echo, "{site_name}"]', "[]"), 13, r"argv: Tuple should have at least 1 item"),
        (STEP.replace('"{site_name}"', "3306"), 13, r"argv\.1: Input should be a valid string"),
        (STEP.replace("name: one", "name: One!"), 10, r"name: String should match"),
        (STEP + "        weight: 0\n", 14, r"weight: Input should be greater"),
        (STEP + "        title: Again\n", 14, r"title: is written twice"),
        (STEP + "        retry_argv: [echo]\n", 14, r"needs a job that `claims`"),
        (STEP + "        prints: [url]\n        unless: [test, -e, x]\n", 14, r"may be skipped"),
        (STEP + "        prints: [url]\n        sets: {url: x}\n", 15, r"both printed and set"),
        (STEP + '        sets: {a: "{secret.admin_password}"}\n', 14, r"unknown variable \{secret\.admin_password\}"),
        (STEP + '        sets: {a: "{env.TOKEN}"}\n', 14, r"unknown variable \{env\.TOKEN\}"),
        (
            STEP + '        prints: [a]\n        compensate: {timeout_s: 5, argv: [echo, "{output.a}"]}\n',
            15,
            r"\{output\.a\}",
        ),
        (
            STEP
            + "        only_if_exists: x\n        sets: {a: b}\n"
            + STEP.replace("    steps:\n", "").replace("one", "two").replace("site_name", "output.a"),
            19,
            r"\{output\.a\}",
        ),
        ("    claims: x\n" + STEP, 9, r"claims: no step compensates"),
        (STEP + STEP.replace("    steps:\n", ""), 14, r"another step of this job is named 'one'"),
        ("    inputs: {id: {pattern: '[', default: x}}\n" + STEP, 9, r"no regular expression"),
        ("    inputs: {id: {pattern: 'a+', default: x}}\n" + STEP, 9, r"default does not match"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, tail: str, line: int, message: str) -> None:
    path = written(tmp_path, HEAD + tail)
    with pytest.raises(RecipeError, match=message) as refusal:
        load_recipe(path)
    assert any(text.startswith(f"{path}:{line}: jobs.create_site.") for text in str(refusal.value).splitlines()), str(
        refusal.value
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a recipe is a mapping"),
        ("- a\n", "a recipe is a mapping"),
        ("a: [\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system [id]\n", "not valid YAML"),
        ("version: 2\nname: x\njobs: {}\n", r"version: Input should be 1"),
        ("version: 1\nname: x\njobs: {explode_site: {steps: []}}\n", "explode_site"),
        (HEAD.replace("secret: true", "value: x, secret: true") + STEP, "a fixed value can have no default"),
        (HEAD.replace("TOKEN:", '"A=B":') + STEP, "String should match pattern"),
        (HEAD + STEP + "cwd: '{nope}'\n", r"cwd: unknown variable"),
    ],
)
def test_useless_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, text))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yml: cannot be read"):
        load_recipe(tmp_path / "nowhere.yml")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    two = STEP.replace("{site_name}", "{a}{b}")
    with pytest.raises(RecipeError) as refusal:
        load_recipe(written(tmp_path, HEAD + two))
    assert len(str(refusal.value).splitlines()) == 2
