"""Issuing papers: an invoice for each payment, and what refunds and disputes take back of it.

It happens in the unit of work that books the money, so there is no money without a paper and no paper without money.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from uuid import UUID, uuid4

from sqlalchemy import select

from core import json
from core.i18n import TEXTS
from core.money import round_money
from models.base import JsonObject
from models.billing import BillingPeriod, PaymentEvent
from models.documents import Document, DocumentKind, DocumentReason
from models.notifications import NotificationType
from services.documents.due import Due, due_papers, tax_of
from services.documents.links import DocumentLinks
from services.documents.numbering import DocumentNumber, take_numbers
from services.documents.parties import Addressee, Issuer, addressee_of
from services.events import InvoiceIssued
from services.mail import MailService
from services.notifications import NotificationService
from services.unit_of_work import UnitOfWork

_LINK = "/billing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """What a payment bought: the plan, by its id and its name; `period` is from when to when, where that is known.

    With `is_change` it is what a plan costs more than the one before it, for the rest of a period.
    """

    plan_id: UUID
    plan: str
    billing_period: BillingPeriod
    period: tuple[datetime, datetime] | None
    is_change: bool = False


class Issuing:
    """Issues what the money book calls for; callers hold the lock of the tenant's subscription."""

    def __init__(
        self, *, issuer: Issuer, links: DocumentLinks, mail: MailService, notifications: NotificationService
    ) -> None:
        self._issuer = issuer
        self._links = links
        self._mail = mail
        self._notifications = notifications

    def settle(self, uow: UnitOfWork, payment_id: UUID, *, sale: Sale | None = None) -> None:
        """Issue, when the use case is over, what is missing of a payment's papers; harmless when repeated.

        Without a `sale` a payment that has no invoice gets none: it was booked before there were any.
        """
        uow.leave_for_last(partial(self._settle, uow, payment_id, sale))

    async def _settle(self, uow: UnitOfWork, payment_id: UUID, sale: Sale | None) -> None:
        # What the use case has booked is read back.
        await uow.session.flush()
        payment = await uow.session.scalar(select(PaymentEvent).where(PaymentEvent.id == payment_id))
        if payment is None:
            return
        movements = (await uow.session.scalars(select(PaymentEvent).where(PaymentEvent.payment_id == payment_id))).all()
        issued = list(
            await uow.session.scalars(
                select(Document)
                .where(Document.payment_id == payment_id)
                .order_by(Document.issued_at, Document.year, Document.place)
            )
        )
        due = due_papers(payment, movements, issued) if issued or sale is not None else []
        if not due:
            return
        addressee = await addressee_of(uow, payment.tenant_id)
        numbers = await take_numbers(uow, self._issuer.series, count=len(due))
        for step, number in zip(due, numbers, strict=True):
            paper = self._write(uow, step, number, issued=issued, payment=payment, addressee=addressee, sale=sale)
            issued.append(paper)
            uow.session.add(paper)
            await self._announce(uow, paper, addressee)

    def _write(
        self,
        uow: UnitOfWork,
        due: Due,
        number: DocumentNumber,
        *,
        issued: Sequence[Document],
        payment: PaymentEvent,
        addressee: Addressee,
        sale: Sale | None,
    ) -> Document:
        invoice = next((paper for paper in issued if paper.kind is DocumentKind.INVOICE), None)
        # What was sold at one rate is taken back at that rate, and in the language in which it was sold.
        rate = self._issuer.tax_rate if invoice is None else invoice.tax_rate
        locale = addressee.locale if invoice is None else invoice.locale
        total = due.total
        tax = _tax(total, issued, rate, payment.currency)
        corrects = _corrected(due, issued)
        return Document(
            id=uuid4(),
            tenant_id=payment.tenant_id,
            kind=due.kind,
            reason=due.reason,
            number=number.text,
            series=number.series,
            year=number.year,
            place=number.place,
            payment_id=payment.id,
            movement_id=due.movement.id,
            part=due.part,
            corrects_id=None if corrects is None else corrects.id,
            locale=locale,
            issuer=self._issuer.printed,
            buyer=addressee.printed,
            lines=[
                _line(_description(due, sale, corrects, locale), total, tax, rate, sale if corrects is None else None)
            ],
            currency=payment.currency,
            tax_rate=rate,
            net=total - tax,
            tax=tax,
            total=total,
            moved_at=due.movement.created_at,
            issued_at=uow.now,
        )

    async def _announce(self, uow: UnitOfWork, paper: Document, addressee: Addressee) -> None:
        shown = {
            "number": paper.number,
            "amount": json.decimal_text(paper.total),
            "currency": paper.currency,
        }
        uow.audit(
            "document.issued",
            actor_id=None,
            tenant_id=paper.tenant_id,
            subject=("document", paper.id),
            details={"kind": paper.kind.value, **shown},
        )
        uow.record(
            InvoiceIssued(
                tenant_id=paper.tenant_id,
                document_id=paper.id,
                number=paper.number,
                kind=paper.kind.value,
                payment_id=paper.payment_id,
                amount=paper.total,
                currency=paper.currency,
                issued_at=paper.issued_at,
            )
        )
        await self._notify(uow, paper, addressee, shown)
        for email, locale in addressee.recipients:
            self._mail.enqueue_letter(
                uow,
                "document_issued",
                recipient=email,
                locale=locale,
                kind=TEXTS.text(f"documents.kind.{paper.kind.value}", locale),
                issuer=paper.issuer["name"],
                buyer=paper.buyer["name"],
                link=self._links.url(paper.id),
                **shown,
            )

    async def _notify(self, uow: UnitOfWork, paper: Document, addressee: Addressee, shown: JsonObject) -> None:
        by_locale: defaultdict[str, list[UUID]] = defaultdict(list)
        for person in addressee.managers:
            by_locale[person.locale].append(person.user_id)
        for locale, user_ids in by_locale.items():
            kind = TEXTS.text(f"documents.kind.{paper.kind.value}", locale)
            await self._notifications.notify(
                uow,
                tenant_id=paper.tenant_id,
                user_ids=user_ids,
                type=NotificationType.INFO,
                title=TEXTS.text("documents.issued.title", locale, kind=kind, **shown),
                message=TEXTS.text("documents.issued.message", locale, kind=kind, **shown),
                data={"document_id": str(paper.id), "number": paper.number, "news": "invoice_issued"},
                link=_LINK,
            )


def _tax(total: Decimal, issued: Sequence[Document], rate: Decimal, currency: str) -> Decimal:
    """Return the tax of a further paper, such that all papers together hold the tax on what was kept, to the cent."""
    before = sum((paper.total for paper in issued), Decimal(0))
    taxed = sum((paper.tax for paper in issued), Decimal(0))
    return tax_of(before + total, rate, currency) - round_money(taxed, currency)


def _corrected(due: Due, issued: Sequence[Document]) -> Document | None:
    """Return what a paper takes back from: a credit note the invoice, a cancellation the movement's credit note."""
    if due.kind is DocumentKind.INVOICE:
        return None
    if due.kind is DocumentKind.CREDIT_NOTE:
        return next(paper for paper in issued if paper.kind is DocumentKind.INVOICE)
    notes = [paper for paper in issued if paper.kind is DocumentKind.CREDIT_NOTE]
    return next(paper for paper in reversed(notes) if paper.movement_id == due.movement.id)


def _description(due: Due, sale: Sale | None, corrects: Document | None, locale: str) -> str:
    if corrects is not None or sale is None:
        number = "" if corrects is None else corrects.number
        is_failed = due.reason is DocumentReason.REFUND and due.kind is DocumentKind.CANCELLATION
        line = "refund_failed" if is_failed else due.reason.value
        return TEXTS.text(f"documents.line.{line}", locale, number=number)
    if sale.is_change:
        return TEXTS.text("documents.line.change", locale, plan=sale.plan)
    period = TEXTS.text(f"documents.period.{sale.billing_period.value}", locale)
    return TEXTS.text("documents.line.plan", locale, plan=sale.plan, period=period)


def _line(description: str, total: Decimal, tax: Decimal, rate: Decimal, sale: Sale | None) -> JsonObject:
    period = None if sale is None else sale.period
    return {
        "description": description,
        "quantity": "1",
        "unit_price": str(total),
        "tax_rate": f"{rate.normalize():f}",
        "net": str(total - tax),
        "tax": str(tax),
        "total": str(total),
        "period_start": None if period is None else period[0].isoformat(),
        "period_end": None if period is None else period[1].isoformat(),
    }
