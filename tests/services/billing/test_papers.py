"""Invoices and credit notes follow from the facts of providers: each once, in the unit that books the money."""

import asyncio
import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from core.pagination import PageRequest
from models.documents import BillingDetails, Document, DocumentKind
from models.mail import OutboundMail
from models.payments import PaymentEvent
from models.tenants import Tenant
from providers.payments import CheckoutPaid, Fact
from server.isolation import as_owner
from services.billing.errors import NotThereYet
from services.documents import DocumentFilter, Issuer
from services.documents.details import DetailsInput, LanguageUnknown
from services.documents.errors import DocumentNotFound
from services.identity import Impersonated, RoleRequired
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWork
from tests.fakes.stripe_api import FakeStripe
from tests.services.billing.test_journal import disputed, paid, refunded
from tests.support.billing import ISSUER, LINKS, PLATFORM, Shop, Till, build_till, press_sandbox
from tests.support.clock import MovableClock
from tests.support.orders_of_facts import Undo

pytestmark = pytest.mark.embedded

TAXED = Issuer(name="ООО «Платформа»", address="Москва", tax_id="77", series="TAX", tax_rate=Decimal(20))


def shown(papers: Sequence[Document]) -> list[tuple[str, str]]:
    return [(paper.kind.value, f"{paper.total:.2f}") for paper in papers]


async def letters(till: Till, papers: Sequence[Document]) -> list[tuple[str, str]]:
    """Return whom letters about papers went to, with their subjects."""
    async with till.units(PLATFORM) as uow:
        mails = (await uow.session.scalars(select(OutboundMail).order_by(OutboundMail.recipient))).all()
    numbers = [paper.number for paper in papers]
    return [(mail.recipient, mail.subject) for mail in mails if any(number in mail.subject for number in numbers)]


async def details(till: Till, shop: Shop, **values: Any) -> None:
    given: dict[str, Any] = dict.fromkeys(("name", "address", "tax_id", "country", "email", "locale"))
    async with till.units(TenantScope(shop.tenant_id)) as uow:
        await till.documents.change_details(uow, shop.owner, DetailsInput(**{**given, **values}))


async def test_a_payment_is_invoiced_once_however_often_it_is_told(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    await till.take(*events, *events)
    (paper,) = await till.papers(shop)
    (payment,) = await till.payments(shop)
    assert (paper.kind, paper.payment_id, paper.movement_id) == (DocumentKind.INVOICE, payment.id, payment.id)
    assert (paper.net, paper.tax, paper.total) == (Decimal("49.99"), Decimal(0), Decimal("49.99"))
    assert paper.currency == "USD"
    assert paper.number == f"INV-{till.now.year}-{paper.place:06d}"
    assert (paper.issuer, paper.buyer["name"]) == (ISSUER.printed, "Shop")
    (line,) = paper.lines
    assert (line["description"], line["total"]) == ("Plan Professional, one month", "49.99")
    subscription = await till.subscription(shop)
    assert line["period_start"] == subscription.current_period_start.isoformat()
    assert line["period_end"] == subscription.current_period_end.isoformat()
    (heard,) = till.heard(shop, "invoice:issued")
    assert heard.namespace == "/billing"
    assert heard.payload["number"] == paper.number
    assert heard.payload["amount"] == Decimal("49.99")
    notes = await till.notifications(shop, papers=True)
    assert {note.user_id for note in notes} == {shop.owner.user_id, shop.admin.user_id}
    assert {note.title for note in notes} == {f"Invoice {paper.number}"}
    assert await letters(till, [paper]) == [
        (f"owner-{shop.tenant_id.hex}@example.org", f"Invoice {paper.number} of Platform")
    ]
    assert (await till.audit(shop)).count("document.issued") == 1


async def test_each_renewal_has_an_invoice_of_its_own_period(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    await till.take(*till.stripe.renew(subscription_id))
    first, second = await till.papers(shop)
    assert second.place > first.place
    assert second.lines[0]["period_start"] == (await till.subscription(shop)).current_period_start.isoformat()


@pytest.mark.parametrize("days", [0, 3, 40])
async def test_a_payment_that_adds_to_what_is_paid_tells_the_period_that_it_added(
    till: Till, shop: Shop, days: int
) -> None:
    await press_sandbox(till, shop, "pay")
    until = (await till.subscription(shop)).current_period_end
    till.travel(days=days)
    await press_sandbox(till, shop, "pay")
    first, second = await till.papers(shop)
    assert first.lines[0]["period_end"] == second.lines[0]["period_start"] == until.isoformat()
    assert second.lines[0]["period_end"] == (await till.subscription(shop)).current_period_end.isoformat()


@pytest.mark.parametrize("apart", [timedelta(0), timedelta(days=3)])
async def test_payments_heard_of_in_the_wrong_order_never_tell_a_day_twice(
    till: Till, shop: Shop, apart: timedelta
) -> None:
    first = await bought(till, shop)
    # Until then the same purchase would be offered again.
    till.travel(days=3)
    second = replace(await bought(till, shop), occurred_at=first.occurred_at + apart)
    await take_late(till, second, first)
    papers = await till.papers(shop)
    (one, other) = sorted((paper.lines[0]["period_start"], paper.lines[0]["period_end"]) for paper in papers)
    assert one[1] == other[0]
    assert other[1] == (await till.subscription(shop)).current_period_end.isoformat()


async def test_a_purchase_that_a_later_one_has_replaced_tells_no_period(till: Till, shop: Shop) -> None:
    first = await bought(till, shop, plan="starter")
    till.travel(days=1)
    await take_late(till, await bought(till, shop, plan="business"), first)
    told = {paper.lines[0]["description"]: paper.lines[0]["period_start"] for paper in await till.papers(shop)}
    assert told["Plan Starter, one month"] is None
    assert told["Plan Business, one month"] is not None


async def test_a_change_of_plan_is_named_and_its_renewal_is_of_the_new_plan(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop, plan="starter")
    till.travel(days=10)
    view = await till.checkout(shop.owner, plan="business")
    await till.take(*till.stripe.pay_checkout(view.session_id))
    till.travel(days=21)
    await till.take(*till.stripe.renew(subscription_id))
    lines = [paper.lines[0] for paper in await till.papers(shop)]
    assert [line["description"] for line in lines] == [
        "Plan Starter, one month",
        "Change to the plan Business",
        "Plan Business, one month",
    ]
    assert lines[1]["period_end"] == lines[0]["period_end"]


async def test_a_refund_has_a_credit_note(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    charge = till.stripe.charge_of(subscription_id)
    events = till.stripe.refund(charge["id"], 500)
    await till.take(*events, *events)
    invoice, note = await till.papers(shop)
    assert shown([invoice, note]) == [("invoice", "49.99"), ("credit_note", "-5.00")]
    assert note.corrects_id == invoice.id
    assert note.lines[0]["description"] == f"Refund, invoice {invoice.number}"
    assert [event.payload["kind"] for event in till.heard(shop, "invoice:issued")] == ["invoice", "credit_note"]
    assert (await letters(till, [note]))[0][1] == f"Credit note {note.number} of Platform"
    async with till.units(TenantScope(shop.tenant_id)) as uow:
        view = await till.documents.show(uow, shop.owner, document_id=invoice.id)
    assert view.status.value == "partly_credited"


async def test_a_failed_payment_has_no_paper(till: Till, shop: Shop) -> None:
    await press_sandbox(till, shop, "decline")
    assert await till.payments(shop)
    assert await till.papers(shop) == []


async def test_what_an_earlier_release_has_booked_gets_no_paper(books: AsyncEngine, till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    (payment,) = await till.payments(shop)
    async with as_owner(books) as connection, connection.begin():
        await connection.execute(text("ALTER TABLE documents DISABLE TRIGGER keep"))
        await connection.execute(text("DELETE FROM documents WHERE payment_id = :payment"), {"payment": payment.id})
        await connection.execute(text("ALTER TABLE documents ENABLE TRIGGER keep"))
    await till.take(*till.stripe.refund(till.stripe.charge_of(subscription_id)["id"], 500))
    assert await till.papers(shop) == []


async def test_papers_speak_the_language_and_name_the_buyer_that_were_told(till: Till) -> None:
    shop = await till.shop(locale="ru")
    await press_sandbox(till, shop, "pay")
    await details(till, shop, name="ООО «Ёлка»", tax_id="7701", country="RU", email="buh@example.org", locale="en")
    await press_sandbox(till, shop, "pay")
    before, after = await till.papers(shop)
    assert (before.locale, before.buyer["name"], before.buyer["email"]) == ("ru", "Shop", None)
    assert before.lines[0]["description"] == "Тариф «Professional», один месяц"
    assert (after.locale, after.buyer["name"], after.buyer["tax_id"]) == ("en", "ООО «Ёлка»", "7701")
    assert await letters(till, [after]) == [("buh@example.org", f"Invoice {after.number} of Platform")]


async def test_only_owners_and_admins_say_whom_papers_name(till: Till, shop: Shop) -> None:
    async with till.units(TenantScope(shop.tenant_id)) as uow:
        assert (await till.documents.details(uow, shop.admin)).name is None
        with pytest.raises(RoleRequired):
            await till.documents.details(uow, shop.member)
        given = DetailsInput(name="X", address=None, tax_id=None, country=None, email=None, locale=None)
        with pytest.raises(RoleRequired):
            await till.documents.change_details(uow, shop.member, given)
        with pytest.raises(Impersonated):
            await till.documents.change_details(uow, replace(shop.owner, impersonator_id=uuid4()), given)
    with pytest.raises(LanguageUnknown):
        await details(till, shop, locale="xx")


async def test_two_who_tell_it_for_the_first_time_at_once_both_succeed(till: Till, shop: Shop) -> None:
    await asyncio.gather(*(details(till, shop, name=f"Name {number}") for number in range(5)))
    async with till.units(PLATFORM) as uow:
        rows = await uow.session.scalars(select(BillingDetails).where(BillingDetails.tenant_id == shop.tenant_id))
        assert len(rows.all()) == 1


async def test_prices_include_the_tax(books: AsyncEngine) -> None:
    clock = MovableClock()
    async with FakeStripe(clock=lambda: clock.now().timestamp()) as stripe:
        till = build_till(books, stripe, clock, issuer=TAXED)
        shop = await till.shop()
        subscription_id = await till.buy(shop)
        charge = till.stripe.charge_of(subscription_id)
        for cents in (1000, 3999):
            await till.take(*till.stripe.refund(charge["id"], cents))
        for provider in till.providers.values():
            await provider.aclose()
    papers = await till.papers(shop)
    assert [f"{paper.tax:.2f}" for paper in papers] == ["8.33", "-1.66", "-6.67"]
    assert sum(paper.total for paper in papers) == sum(paper.tax for paper in papers) == 0
    assert papers[0].issuer["name"] == "ООО «Платформа»"


async def test_the_database_refuses_to_change_a_paper(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    for statement in ("UPDATE documents SET total = 1, net = 1", "DELETE FROM documents", "TRUNCATE documents CASCADE"):
        with pytest.raises(DBAPIError, match=r"issued documents are never changed|permission denied"):
            async with till.units(PLATFORM) as uow:
                await uow.session.execute(text(statement))
    assert len(await till.papers(shop)) == 1


async def test_papers_outlive_their_tenant_and_are_nobody_elses(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    (paper,) = await till.papers(shop)
    async with till.units(PLATFORM) as uow:
        view = await till.documents.hosted(uow, LINKS.url(paper.id).rpartition("/")[2])
        # As the sweep of services/tenants/deletion.py does it.
        await uow.session.execute(delete(Tenant).where(Tenant.id == shop.tenant_id))
    assert await till.payments(shop) == []
    assert [kept.number for kept in await till.papers(shop)] == [paper.number]
    other = await till.shop()
    async with till.units(TenantScope(other.tenant_id)) as uow:
        assert await uow.session.scalar(text("SELECT count(*) FROM documents")) == 0
        with pytest.raises(DocumentNotFound):
            await till.documents.show(uow, other.owner, document_id=paper.id)
    boss = replace(other.owner, is_superuser=True)
    async with till.units(PLATFORM) as uow:
        page = await till.documents.list_all(uow, boss, DocumentFilter(), PageRequest(), tenant_id=shop.tenant_id)
        assert list(page.items) == [view]


async def test_long_lists_are_written_page_by_page(till: Till, shop: Shop) -> None:
    await press_sandbox(till, shop, "pay")
    (first,), (paper,) = await till.payments(shop), await till.papers(shop)
    series = uuid4().hex[:12].upper()
    async with till.units(PLATFORM) as uow:
        for place in range(1, 1001):
            own = {
                "id": uuid4(),
                "fact_key": uuid4().hex,
                "created_at": first.created_at + timedelta(seconds=1 + place // 2),
            }
            uow.session.add(PaymentEvent(**{**columns(first), **own}))
            place_in_series = {"series": series, "place": place, "number": f"{series}-{place}"}
            uow.session.add(Document(**{**columns(paper), "id": uuid4(), "movement_id": uuid4(), **place_in_series}))
    pieces = [piece async for piece in till.documents.csv(shop.owner, DocumentFilter(), trace=RequestTrace())]
    numbers = [row["number"] for row in table(pieces) if row["number"].startswith(series)]
    assert numbers == [f"{series}-{place}" for place in range(1, 1001)]
    pieces = [piece async for piece in till.billing.invoices_csv(shop.owner, trace=RequestTrace())]
    assert len(pieces) == 4
    payment_ids = [row["payment_id"] for row in table(pieces)]
    assert len(set(payment_ids)) == len(payment_ids) == 1001
    assert payment_ids[0] == str(first.id)


def columns(row: Document | PaymentEvent) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def table(pieces: Sequence[bytes]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(pieces).decode("utf-8-sig"), newline="")))


async def test_every_order_of_facts_leaves_the_same_papers(till: Till, shop: Shop) -> None:
    await till.checkout(shop.owner)
    (checkout,) = await till.checkouts(shop)
    facts = [paid(checkout), refunded(checkout, Decimal("10.00")), *disputed(checkout, "first", "won")]
    found = []
    try:
        async with till.units(PLATFORM) as uow:
            for order in itertools.permutations(facts):
                async with uow.session.begin_nested() as attempt:
                    await take_one_by_one(till, uow, [*order, *order[:2]])
                    await uow.session.flush()
                    papers = await uow.session.scalars(select(Document).where(Document.tenant_id == shop.tenant_id))
                    found.append(sorted(shown(papers.all())))
                    await attempt.rollback()
            raise Undo
    except Undo:
        pass
    invoice, dispute = ("invoice", "49.99"), [("cancellation", "20.00"), ("credit_note", "-20.00")]
    assert len(found) == 24
    assert all(papers == sorted([invoice, ("credit_note", "-10.00"), *dispute]) for papers in found)


async def bought(till: Till, shop: Shop, **order: Any) -> Fact:
    """Begin to buy a plan where each payment is for one period; returns what tells that it is paid now."""
    view = await till.checkout(shop.owner, provider="sandbox", **order)
    (checkout,) = [one for one in await till.checkouts(shop) if one.session_id == view.session_id]
    fact = paid(checkout)
    assert isinstance(fact, CheckoutPaid)
    return replace(fact, provider="sandbox", amount=checkout.amount, occurred_at=till.now)


async def take_late(till: Till, *facts: Fact) -> None:
    """Apply facts in the order given, a second after each other."""
    for fact in facts:
        till.travel(seconds=1)
        async with till.units(PLATFORM) as uow:
            await till.billing._inbox._applier.apply(uow, fact)


async def take_one_by_one(till: Till, uow: UnitOfWork, facts: Sequence[Fact]) -> None:
    """Apply facts as if each had a unit of work of its own, what has to wait again and again."""
    waiting = list(facts)
    while waiting:
        left = []
        for fact in waiting:
            try:
                async with uow.session.begin_nested():
                    await till.billing._inbox._applier.apply(uow, fact)
                    await uow.take_last_steps()
            except NotThereYet:
                left.append(fact)
        assert len(left) < len(waiting), "nothing more can be applied"
        waiting = left
