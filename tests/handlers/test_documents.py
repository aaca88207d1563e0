"""Our own papers over REST: lists, files, whom they name, and the page that needs no sign-in."""

import csv
import html
import io
import re
from typing import Any
from uuid import uuid4

import pypdf
import pytest
from aiohttp import ClientSession
from sqlalchemy import update

from handlers import hosted_documents
from models.users import User
from services.unit_of_work import PlatformScope
from tests.handlers.buying import colleague, paid
from tests.support.identity import letter_in
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

DOCUMENT_KEYS = {
    "id", "tenant_id", "number", "kind", "reason", "status", "payment_id", "movement_id", "corrects_id",
    "corrects_number", "currency", "tax_rate", "net", "tax", "total", "lines", "issuer", "buyer", "locale", "moved_at",
    "issued_at", "url", "pdf_url",
}  # fmt: skip
LINE_KEYS = {
    "description", "quantity", "unit_price", "tax_rate", "net", "tax", "total", "period_start", "period_end",
}  # fmt: skip
ODD = '=cmd|"</title><script>alert(1)</script>'
POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


async def tell(owner: Person, **details: str | None) -> Any:
    status, answer = await owner.request("PUT", "billing/details", json=details)
    assert status == 200, answer
    return answer["data"]


async def invoiced(owner: Person) -> dict[str, Any]:
    """Buy a plan; returns the newest paper."""
    await paid(owner)
    status, answer = await owner.get("billing/documents")
    assert status == 200
    paper: dict[str, Any] = answer["data"][0]
    return paper


async def download(http: ClientSession, url: str, **headers: str) -> tuple[int, bytes, Any]:
    async with http.get(url, headers=headers) as response:
        return response.status, await response.read(), response.headers


async def download_as(person: Person, path: str) -> tuple[int, bytes, Any]:
    return await download(person.http, address(person.url, path), Authorization=f"Bearer {person.token}")


def table(content: bytes) -> list[dict[str, str]]:
    text = content.decode("utf-8-sig")
    assert text.count("\n") == text.count("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
async def boss(orchestrator: Orchestrator, company: RegisterCompany) -> Person:
    """One of the platform's people."""
    person = await company("Platform")
    async with orchestrator.units(PlatformScope("a test makes a superuser")) as uow:
        await uow.session.execute(update(User).where(User.id == person.user_id).values(is_superuser=True))
    body = {"email": person.email, "password": person.password}
    _, answer = await request(person.http, "POST", address(person.url, "auth/login"), json=body)
    person.token = answer["data"]["access_token"]
    return person


async def test_an_invoice_field_by_field(company: RegisterCompany) -> None:
    owner, other = await company("Acme"), await company()
    paper = await invoiced(owner)
    assert set(paper) == DOCUMENT_KEYS
    assert re.fullmatch(r"INV-\d{4}-\d{6}", paper["number"])
    assert (paper["tenant_id"], paper["kind"], paper["reason"], paper["status"]) == (
        *(str(owner.tenant_id), "invoice", "payment", "paid"),
    )
    assert (paper["net"], paper["tax"], paper["total"], paper["tax_rate"]) == (49.99, 0, 49.99, 0)
    assert (paper["currency"], paper["locale"], paper["corrects_id"]) == ("USD", "en", None)
    (line,) = paper["lines"]
    assert set(line) == LINE_KEYS
    assert (line["description"], line["quantity"], line["unit_price"]) == ("Plan Professional, one month", 1, 49.99)
    assert paper["issuer"]["name"] == "ERPMax Orchestrator"
    assert paper["buyer"]["name"].startswith("Acme ")
    assert paper["pdf_url"] == f"{paper['url']}/pdf"
    assert paper["issued_at"].endswith("Z")

    path = f"billing/documents/{paper['id']}"
    assert (await owner.get(path))[1]["data"] == paper
    for somebody in (other, await colleague(company, owner, "member")):
        assert (await somebody.get(path))[0] == (404 if somebody is other else 403)
        assert (await download_as(somebody, f"{path}/pdf"))[0] == (404 if somebody is other else 403)
    assert (await other.get("billing/documents"))[1]["data"] == []
    assert (await (await colleague(company, owner, "admin")).get(path))[0] == 200


async def test_papers_are_found_by_what_they_are(company: RegisterCompany) -> None:
    owner = await company()
    paper = await invoiced(owner)

    async def found(**wanted: str) -> list[str]:
        status, answer = await owner.get("billing/documents", params=wanted)
        assert status == 200, answer
        assert answer["pagination"]["total"] == len(answer["data"])
        return [item["number"] for item in answer["data"]]

    for wanted in (
        {"kind": "invoice"},
        {"number": paper["number"]},
        {"payment_id": paper["payment_id"]},
        {"since": paper["issued_at"]},
        {"until": "2100-01-01T00:00:00Z"},
    ):
        assert await found(**wanted) == [paper["number"]], wanted
    for unwanted in (
        {"kind": "credit_note"},
        {"number": "INV-1"},
        {"payment_id": str(uuid4())},
        {"since": "2100-01-01T00:00:00Z"},
        {"until": paper["issued_at"]},
    ):
        assert await found(**unwanted) == [], unwanted
    assert (await owner.get("billing/documents", params={"kind": "bill"}))[0] == 422


async def test_whom_papers_name_is_told_in_full_and_holds_from_then_on(company: RegisterCompany) -> None:
    owner = await company()
    status, answer = await owner.get("billing/details")
    assert (status, set(answer["data"].values())) == (200, {None})
    told = await tell(
        owner,
        name="  ООО\n«Ёлка» ",
        address="ул. Щукина, 1 \r\nМосква",
        tax_id="7701",
        country="ru",
        email="Buh@example.org",
        language="RU",
    )
    assert {key: told[key] for key in told if key != "updated_at"} == {
        "name": "ООО «Ёлка»",
        "address": "ул. Щукина, 1\nМосква",
        "tax_id": "7701",
        "country": "RU",
        "email": "Buh@example.org",
        "language": "ru",
    }
    paper = await invoiced(owner)
    assert (paper["locale"], paper["buyer"]["name"], paper["buyer"]["country"]) == ("ru", "ООО «Ёлка»", "RU")
    told = await tell(owner, name=" ", tax_id=None)
    assert {told[key] for key in told if key != "updated_at"} == {None}
    # What was issued stays as it was.
    assert (await owner.get(f"billing/documents/{paper['id']}"))[1]["data"] == paper


@pytest.mark.parametrize(
    "details",
    [
        {"country": "RUS"},
        {"country": "1"},
        {"email": "nobody"},
        {"name": "x" * 256},
        {"tax_id": "x" * 51},
        {"address": "\n".join("x" * 9)},
        {"language": "very-long-language"},
        {"tax_id": "77\u001b[2J"},
        {"name": "ООО \u202eаклЁ"},
        {"address": "Москва\n\u2066ул. Щукина"},
        {"address": "Москва\u0007"},
    ],
)
async def test_details_that_cannot_be(company: RegisterCompany, details: dict[str, str]) -> None:
    owner = await company()
    status, answer = await owner.request("PUT", "billing/details", json=details)
    assert (status, answer["errors"][0]["field"]) == (422, f"body -> {next(iter(details))}")


async def test_a_language_in_which_nothing_is_written(company: RegisterCompany) -> None:
    status, answer = await (await company()).request("PUT", "billing/details", json={"language": "xx"})
    assert (status, answer["detail"]) == (422, "Documents are not written in this language")
    assert [error["field"] for error in answer["errors"]] == ["body -> language"]


async def test_the_file_of_an_invoice(company: RegisterCompany) -> None:
    owner = await company()
    await tell(owner, name="ООО «Ёлка»", language="ru")
    paper = await invoiced(owner)
    status, content, headers = await download_as(owner, f"billing/documents/{paper['id']}/pdf")
    assert (status, headers["Content-Type"]) == (200, "application/pdf")
    assert headers["Content-Disposition"] == f'inline; filename="{paper["number"]}.pdf"'
    text = pypdf.PdfReader(io.BytesIO(content)).pages[0].extract_text()
    for shown in (f"Счёт {paper['number']}", "ООО «Ёлка»", "Тариф «Professional»", "Итого 49.99 USD"):
        assert shown in text
    assert (await download(owner.http, paper["pdf_url"]))[1] == content
    assert (await download_as(owner, f"billing/documents/{paper['id']}/pdf"))[1] == content


async def test_the_page_is_for_whoever_has_its_link(company: RegisterCompany, http: ClientSession) -> None:
    owner = await company("Acme")
    paper = await invoiced(owner)
    status, content, headers = await download(http, paper["url"])
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Robots-Tag"] == "noindex, nofollow"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert (headers["Cache-Control"], headers["Content-Language"]) == ("private, no-store", "en")
    text = content.decode()
    for shown in (f"<h1>Invoice {paper['number']}</h1>", ">Paid<", "49.99 USD", html.escape(paper["buyer"]["name"])):
        assert shown in text
    assert 'content="noindex, nofollow"' in text
    assert "<script" not in text
    assert "style=" not in text
    assert (await download(http, f"{owner.url}/invoices/page.css"))[2]["Content-Type"] == "text/css; charset=utf-8"


async def test_whatever_stands_on_the_page_is_escaped(company: RegisterCompany, http: ClientSession) -> None:
    owner = await company()
    await tell(owner, name=ODD, address=ODD, tax_id=ODD)
    paper = await invoiced(owner)
    text = (await download(http, paper["url"]))[1].decode()
    assert "<script" not in text
    assert text.count(html.escape(ODD)) == 3


async def test_links_that_we_did_not_make(company: RegisterCompany, http: ClientSession) -> None:
    owner = await company()
    paper = await invoiced(owner)
    wrong = (
        paper["url"][:-2] + "AA",
        f"{owner.url}/invoices/{paper['id']}",
        f"{owner.url}/invoices/x",
        f"{owner.url}/invoices/%3Cscript%3E",
    )
    for url in wrong:
        status, content, _ = await download(http, url)
        assert (status, b"Document not found" in content) == (404, True)
        assert (await download(http, f"{url}/pdf"))[0] == 404
        status, content, headers = await download(http, url, Accept="text/html,*/*", **{"Accept-Language": "ru"})
        assert (status, headers["Content-Security-Policy"]) == (404, POLICY)
        assert "<h1>Такого документа нет</h1>" in content.decode()


def test_links_cannot_be_tried_without_end() -> None:
    by_token = [endpoint for endpoint in hosted_documents.router.endpoints if "token" in endpoint.path]
    assert [endpoint.rule for endpoint in by_token] == ["documents_per_ip"] * 2


async def test_payments_as_csv(company: RegisterCompany) -> None:
    owner = await company()
    paper = await invoiced(owner)
    status, content, headers = await download_as(owner, "billing/invoices.csv")
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert headers["Content-Disposition"] == 'attachment; filename="invoices.csv"'
    assert content.startswith(b"\xef\xbb\xbfcreated_at,event_type,")
    (row,) = table(content)
    assert (row["event_type"], row["status"], row["amount"], row["currency"]) == (
        "payment_success",
        "paid",
        "49.99",
        "USD",
    )
    assert (row["document_number"], row["invoice_url"]) == (paper["number"], paper["url"])
    assert table((await download_as(await company(), "billing/invoices.csv"))[1]) == []


async def test_papers_as_csv_hold_no_formulas(company: RegisterCompany) -> None:
    owner = await company()
    await tell(owner, name='=HYPERLINK("http://x","y")', tax_id="+7", country="DE")
    paper = await invoiced(owner)
    (row,) = table((await download_as(owner, "billing/documents.csv"))[1])
    assert (row["number"], row["total"], row["tax"], row["url"]) == (paper["number"], "49.99", "0.00", paper["url"])
    assert (row["buyer_name"], row["buyer_tax_id"]) == ('\'=HYPERLINK("http://x","y")', "'+7")
    assert table((await download_as(owner, "billing/documents.csv?kind=credit_note"))[1]) == []


async def test_superusers_see_the_papers_of_every_tenant(company: RegisterCompany, boss: Person) -> None:
    owners = [await company(), await company()]
    papers = [await invoiced(owner) for owner in owners]
    for owner, paper in zip(owners, papers, strict=True):
        status, answer = await boss.get("super-admin/documents", params={"tenant_id": str(owner.tenant_id)})
        assert (status, answer["data"]) == (200, [paper])
        rows = table((await download_as(boss, f"super-admin/documents.csv?tenant_id={owner.tenant_id}"))[1])
        assert [row["number"] for row in rows] == [paper["number"]]
    _, answer = await boss.get("super-admin/documents", params={"size": 2})
    assert answer["pagination"]["total"] >= 2
    for path in ("super-admin/documents", "super-admin/documents.csv"):
        assert (await owners[0].get(path))[0] == 403


async def test_the_owner_is_sent_the_link(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    owner = await company("Acme")
    paper, outbox = await invoiced(owner), orchestrator.settings.data_dir / "outbox"
    assert paper["url"] in await letter_in(outbox, owner.email)
