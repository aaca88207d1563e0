"""The pages and what they load: all of it ours, under a strict policy, in both languages."""

import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from yarl import URL

from handlers.pages import PAGES, WEB, mount_pages
from services.events import CATALOGUE

PATHS = [path.format(token="a-token") for page in PAGES for path in page.paths]
OF_LETTERS = ("/reset-password", "/verify-email", "/finish-registration", "/invitations", "/invitations/a-token")
OUR_SCRIPTS = sorted(
    file
    for folder in ("dashboard", "docs", "finish-registration", "invitation", "redoc", "reset-password", "verify-email")
    for file in (WEB / folder).glob("*.js")
)
DASHBOARD = WEB / "dashboard"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[TestServer]:
    """The pages alone: they need no other part of the house."""
    app = web.Application()
    mount_pages(app)
    running = TestServer(app)
    await running.start_server()
    yield running
    await running.close()


class Loads(HTMLParser):
    """Collects the addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.nonces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value for value in (given.get("src"), given.get("href") if tag == "link" else None) if value]
        self.nonces += [value for value in (given.get("nonce"),) if value]


def loads(text: str) -> Loads:
    reader = Loads()
    reader.feed(text)
    return reader


def directives(policy: str) -> dict[str, list[str]]:
    return {name: sources for name, *sources in (part.split() for part in policy.split(";"))}


@pytest.mark.parametrize("path", PATHS)
async def test_page_is_served_under_a_strict_policy(http: ClientSession, server: TestServer, path: str) -> None:
    async with http.get(server.make_url(path)) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == ("no-referrer" if path in OF_LETTERS else "same-origin")
        policy = directives(answer.headers["Content-Security-Policy"])
        assert "{" not in await answer.text()
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == ["'self'"]
    assert policy["connect-src"] == ["'self'"]
    assert policy["base-uri"] == policy["frame-ancestors"] == ["'none'"]
    sources = [source for allowed in policy.values() for source in allowed]
    assert not [source for source in sources if source.startswith("'unsafe") or "//" in source or "*" in source]


@pytest.mark.parametrize("path", PATHS)
async def test_everything_a_page_loads_is_ours_and_may_be_kept(
    http: ClientSession, server: TestServer, path: str
) -> None:
    async with http.get(server.make_url(path)) as answer:
        wanted = loads(await answer.text()).addresses
    assert wanted
    seen: set[str] = set()
    while wanted:
        address = wanted.pop()
        assert address.startswith("/assets/")
        async with http.get(server.make_url(address)) as answer:
            assert answer.status == 200, address
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            expected = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}[Path(address).suffix]
            assert answer.content_type == expected
            text = await answer.text() if "/vendor/" not in address else ""
        seen.add(address)
        imported = {urljoin(address, name) for name in re.findall(r'^import .*from "([^"]+)"', text, re.MULTILINE)}
        wanted += imported - seen


async def test_nonce_is_new_in_each_answer_and_stands_in_policy_and_page(
    http: ClientSession, server: TestServer
) -> None:
    nonces = []
    for _ in range(2):
        async with http.get(server.make_url("/redoc")) as answer:
            found = re.findall(r"'nonce-([^']+)'", answer.headers["Content-Security-Policy"])
            assert found == loads(await answer.text()).nonces
            nonces += found
    assert len(set(nonces)) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/assets/x/nothing.js",
        "/assets/x/vendor/README.md",
        "/assets/x/dashboard/index.html",
        "/assets/x/sandbox/page.css",
        "/assets/x/vendor",
        "/assets/x/%2e%2e/setup.cfg",
        "/assets/x/dashboard/%2e%2e/%2e%2e/setup.cfg",
        "/assets/x/dashboard%2f..%2f..%2fsetup.cfg",
    ],
)
async def test_nothing_else_is_served(http: ClientSession, server: TestServer, path: str) -> None:
    async with http.get(URL(str(server.make_url("/")).rstrip("/") + path, encoded=True)) as answer:
        assert answer.status == 404


async def test_file_of_another_release_is_served_but_not_kept(http: ClientSession, server: TestServer) -> None:
    async with http.get(server.make_url("/assets/older/dashboard/dashboard.js")) as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
        etag = answer.headers["ETag"]
    unchanged = {"If-None-Match": etag}
    async with http.get(server.make_url("/assets/older/dashboard/dashboard.js"), headers=unchanged) as answer:
        assert answer.status == 304


def test_vendored_files_are_those_that_the_readme_names() -> None:
    vendor = WEB / "vendor"
    readme = (vendor / "README.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `([0-9a-f]{64})` \| `([^`]+)` \|", readme, re.MULTILINE))
    code = [file for file in vendor.rglob("*") if file.suffix in (".js", ".css", ".ttf")]
    found = {hashlib.sha256(file.read_bytes()).hexdigest(): file.relative_to(vendor).as_posix() for file in code}
    assert found == table
    assert all((folder / "LICENSE").is_file() for folder in vendor.iterdir() if folder.is_dir())


@pytest.mark.parametrize("script", OUR_SCRIPTS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_our_scripts_never_turn_text_into_markup_or_code(script: Path) -> None:
    code = script.read_text(encoding="utf-8")
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc", code)


def _languages() -> Iterator[tuple[str, set[str]]]:
    text = (DASHBOARD / "texts.js").read_text(encoding="utf-8")
    for name, body in re.findall(r"^  (\w\w): \{\n(.*?)^  \},", text, re.MULTILINE | re.DOTALL):
        yield name, set(re.findall(r'^    "?([\w:.]+)"?: "', body, re.MULTILINE))


def test_both_languages_have_every_text() -> None:
    languages = dict(_languages())
    assert set(languages) == {"en", "ru"}
    assert languages["en"] == languages["ru"]
    page = (DASHBOARD / "index.html").read_text(encoding="utf-8")
    scripts = "".join(file.read_text(encoding="utf-8") for file in DASHBOARD.glob("*.js"))
    used = set(re.findall(r'data-t(?:-label|-empty)?="(\w+)"', page)) | set(re.findall(r'\bt\("([\w.]+)"', scripts))
    assert used
    assert used <= languages["en"]


def test_dashboard_has_a_sentence_for_every_event_it_hears() -> None:
    live = (DASHBOARD / "live.js").read_text(encoding="utf-8")
    heard = set(re.findall(r'^  "([\w:]+)",$', live, re.MULTILINE))
    sentences = {key.removeprefix("event.") for key in dict(_languages())["en"] if key.startswith("event.")}
    assert heard == sentences
    assert heard <= {event.event for event in CATALOGUE}


@pytest.mark.parametrize(
    ("page", "script", "needed"),
    [
        ("reset-password/index.html", "reset-password/reset.js", {"title", "noToken", "done"}),
        ("verify-email/index.html", "verify-email/verify.js", {"title", "noToken", "done"}),
        ("finish-registration/index.html", "finish-registration/finish.js", {"title", "noToken", "done"}),
        ("invitation/index.html", "invitation/invitation.js", {"title", "noToken", "accepted", "fullName", "signIn"}),
    ],
)
def test_the_pages_of_letters_have_every_text_in_both_languages(page: str, script: str, needed: set[str]) -> None:
    code = (WEB / script).read_text(encoding="utf-8")
    languages = {
        name: set(re.findall(r'^    (\w+): "', body, re.MULTILINE))
        for name, body in re.findall(r"^  (\w\w): \{\n(.*?)^  \},", code, re.MULTILINE | re.DOTALL)
    }
    used = set(re.findall(r'data-t="(\w+)"', (WEB / page).read_text(encoding="utf-8")))
    shared = (WEB / "letters/page.js").read_text(encoding="utf-8") if "letters/page.js" in code else ""
    used |= set(re.findall(r'\b(?:say|t|filled)\("(\w+)"', code + shared))
    assert languages["en"] == languages["ru"] >= used
    assert needed <= used
