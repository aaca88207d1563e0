"""The story: a company registers, watches its site come up, pays, and enters (contract.md 2.2, 4, 5, 6, 7)."""

import asyncio
import html
import secrets
from collections.abc import Awaitable, Callable, Sequence

from pydantic import ValidationError

from server.demo.browser import Browser
from server.demo.chronicle import check_chronicle, same_story
from server.demo.client import RestClient
from server.demo.failure import StepFailed, expect
from server.demo.listener import Heard, Listener
from server.demo.printing import Printer
from server.demo.shapes import (
    Checkout,
    Entry,
    Health,
    Invoice,
    Job,
    Notification,
    Plan,
    SignedIn,
    Subscription,
)

Step = tuple[str, Callable[[], Awaitable[None]]]

_READY_S = 30
_HOW_TO_START = (
    "        Start a server in another terminal by `make run`, or say where one is: "
    "`PORT=8100 make demo`, `orchestrator demo --url ...`."
)
_TERMINAL = ("status:completed", "status:failed")


class Story:
    """What happens, in order; each step leaves behind what the next ones need and raises StepFailed."""

    _owner: SignedIn
    _plan: Plan
    _checkout: Checkout
    _job: Job
    _both_from: int

    def __init__(
        self,
        client: RestClient,
        *,
        url: str,
        browser: Browser,
        dashboard: Listener,
        phone: Listener,
        printer: Printer,
        silence_s: float,
    ) -> None:
        """Take the players; `silence_s` is how long nobody at all may answer at first."""
        self._client = client
        self._url = url
        self._browser = browser
        self._dashboard = dashboard
        self._phone = phone
        self._both = (dashboard, phone)
        self._printer = printer
        self._silence_s = silence_s

    def steps(self) -> Sequence[Step]:
        """Return the steps with their titles."""
        return (
            ("The server is ready", self._ready),
            ("A company registers", self._register),
            ("A dashboard and a phone connect", self._connect),
            ("A trial and a first job began with it", self._look_at_beginning),
            ("Both watch the site come up, live", self._watch),
            ("The owner chooses a plan", self._choose),
            ("The owner checks it out", self._check_out),
            ("The owner pays on the provider's page", self._pay),
            ("Everybody entitled hears of it", self._hear_of_payment),
            ("The subscription is active and the payment recorded", self._look_at_subscription),
            ("The owner reads a notification on the phone", self._read_notification),
            ("The owner enters the instance, once", self._enter),
            ("Both heard everything, in order, exactly once", self._compare),
        )

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        started, heard = loop.time(), False
        while True:
            fault, answer = await self._look_whether_ready()
            if not fault:
                break
            waited, heard = loop.time() - started, heard or bool(answer)
            expect(heard or waited < self._silence_s, f"nothing answers at {self._url}: {fault}\n{_HOW_TO_START}")
            expect(waited < _READY_S, f"not ready within {_READY_S} s: {fault}")
            await asyncio.sleep(0.2)
        try:
            health = Health.model_validate_json(answer)
        except ValidationError as error:
            raise StepFailed(f"{self._url} is not an orchestrator: /ready answered {answer[:200]}") from error
        self._printer.note(f"version {health.version}, {health.environment}")

    async def _look_whether_ready(self) -> tuple[str, str]:
        """Return what is wrong, empty when nothing is, and what the server answered."""
        try:
            seen = await self._browser.open(f"{self._url}/ready")
        except StepFailed as failure:
            return str(failure), ""
        return ("" if seen.status == 200 else f"{seen.url} answered {seen.status}: {seen.text[:300]}"), seen.text

    async def _register(self) -> None:
        unique = secrets.token_hex(4)
        self._owner = await self._client.post(
            "auth/register",
            {
                "email": f"owner-{unique}@example.com",
                "password": secrets.token_urlsafe(16),
                "full_name": "Olga Owner",
                "company_name": f"Demo Company {unique}",
            },
            SignedIn,
        )
        self._client.token = self._owner.access_token
        tenant = self._owner.current_tenant
        self._printer.note(f"{tenant.name}, owned by {self._owner.user.full_name} <{self._owner.user.email}>")

    async def _connect(self) -> None:
        for listener in self._both:
            listener.on_heard = self._draw
        await asyncio.gather(*(listener.connect(self._url, self._owner.access_token) for listener in self._both))
        # From the next event on both must hear the same.
        self._both_from = max((heard.fields.seq for listener in self._both for heard in listener.heard), default=0)
        for listener in self._both:
            self._printer.note(f"{listener.name} on {' and '.join(listener.namespaces)}")

    async def _look_at_beginning(self) -> None:
        subscription = await self._client.get("billing/subscription", Subscription)
        expect(subscription.status == "trial", f"the subscription is {subscription.status}, not a trial")
        expect(subscription.trial_ends_at, "the trial has no end")
        jobs = await self._client.get("provisioning/jobs", list[Job])
        first = next((job for job in jobs if job.job_type == "create_site"), None)
        if first is None:
            raise StepFailed("no create_site job was started")
        self._job = first
        self._printer.note(f"trial until {subscription.trial_ends_at:%d %B %Y}; job {first.job_type}: {first.status}")

    async def _watch(self) -> None:
        if self._job.status in ("completed", "failed") and not any(map(self._ends_job, self._phone.heard)):
            # A site that is made faster than a socket connects was not seen; a backup of it will be.
            expect(self._job.status == "completed", f"{self._job.job_type} failed: {self._job.error}")
            self._job = await self._client.post("provisioning/jobs", {"job_type": "backup_site"}, Job)
            self._printer.note("the site was there before the sockets were: watching its backup instead")
        ends = await asyncio.gather(*(listener.wait_for(self._ends_job) for listener in self._both))
        for end in ends:
            expect(end.name == "status:completed", f"{self._job.job_type} failed: {end.fields.error}")
        for listener in self._both:
            self._expect_progress(listener)
        job = await self._client.get(f"provisioning/jobs/{self._job.id}", Job)
        expect((job.status, job.progress) == ("completed", 100), f"the job is {job.status} at {job.progress} %")

    async def _choose(self) -> None:
        plans = await self._client.get("billing/plans", list[Plan])
        self._printer.table([(plan.slug, f"{plan.price_monthly:.2f} {plan.currency} a month") for plan in plans])
        chosen = next((plan for plan in plans if plan.slug == "professional"), None)
        if chosen is None:
            raise StepFailed("there is no plan 'professional'; has `orchestrator seed` run?")
        self._plan = chosen
        self._printer.note(f"chosen: {chosen.name}, monthly")

    async def _check_out(self) -> None:
        self._checkout = await self._client.post(
            "billing/checkout",
            {
                "plan_id": str(self._plan.id),
                "billing_period": "monthly",
                "payment_provider": "sandbox",
                "success_url": f"{self._url}/dashboard?checkout=success",
                "cancel_url": f"{self._url}/dashboard?checkout=cancelled",
            },
            Checkout,
        )
        self._printer.note(self._checkout.checkout_url.split("?")[0])

    async def _pay(self) -> None:
        page = await self._browser.open(self._checkout.checkout_url)
        expect(page.status == 200, f"the payment page answered {page.status}")
        back = await self._browser.press(page, "pay")
        expect(back.status == 200, f"paying ended at {back.url} with {back.status}")
        expect("checkout=success" in back.url, f"paying led to {back.url} and not back to the shop")
        self._printer.note(f"paid, and back at {back.url}")

    async def _hear_of_payment(self) -> None:
        for listener in self._both:
            payment = await listener.wait_for(lambda heard: heard.name == "payment:received")
            paid = (payment.fields.amount, payment.fields.currency)
            expect(paid == (self._plan.price_monthly, self._plan.currency), f"{listener.name} heard of {paid}")
            await listener.wait_for(_says_active)
            self._printer.note(f"{listener.name}: payment:received, subscription:updated")

    async def _look_at_subscription(self) -> None:
        subscription = await self._client.get("billing/subscription", Subscription)
        found = (subscription.status, subscription.plan.slug, subscription.billing_period)
        expect(found == ("active", "professional", "monthly"), f"the subscription is {' '.join(found)}")
        invoices = await self._client.get("billing/invoices", list[Invoice])
        paid = [(invoice.amount, invoice.currency) for invoice in invoices if invoice.status == "paid"]
        expect(paid == [(self._plan.price_monthly, self._plan.currency)], f"the recorded payments are {paid}")
        until = f"{subscription.current_period_end:%d %B %Y}"
        self._printer.note(f"{subscription.plan.name} until {until}; {paid[0][0]:.2f} {paid[0][1]} recorded")

    async def _read_notification(self) -> None:
        await self._phone.wait_for(lambda heard: heard.name == "notification:new")
        unread = await self._client.get("notifications?unread=true", list[Notification])
        expect(unread, "a notification was heard, but none is unread")
        await self._phone.mark_read(unread[0].id)
        left = await self._client.get("notifications?unread=true", list[Notification])
        expect(unread[0].id not in [item.id for item in left], "the notification that was read is still unread")
        self._printer.note(f"'{unread[0].title}' read; {len(left)} more unread")

    async def _enter(self) -> None:
        entry = await self._client.post("sso/erpnext/token", None, Entry)
        inside = await self._browser.open(entry.sso_url)
        name = self._owner.user.full_name
        expect(inside.status == 200, f"the instance answered {inside.status}")
        expect(html.escape(name) in inside.text, f"the instance at {inside.url} does not greet {name}")
        self._printer.note(f"inside {inside.url}: it knows {name}")
        stranger = Browser()
        try:
            again = await stranger.open(entry.sso_url)
        finally:
            await stranger.close()
        expect(again.status >= 400, f"the token let somebody in a second time ({again.status})")
        self._printer.note(f"the same token again: refused ({again.status})")

    async def _compare(self) -> None:
        await same_story(self._dashboard, self._phone, after=self._both_from)
        places = [(listener, namespace) for listener in self._both for namespace in listener.namespaces]
        heard = [check_chronicle(listener, namespace) for listener, namespace in places]
        self._printer.table([("where", "events", "numbers", "what"), *heard])

    def _ends_job(self, heard: Heard) -> bool:
        return heard.fields.job_id == self._job.id and heard.name in _TERMINAL

    def _expect_progress(self, listener: Listener) -> None:
        steps = self._percents(listener)
        expect(any(0 < percent < 100 for percent in steps), f"{listener.name} saw no progress between start and end")
        expect(steps == sorted(steps), f"{listener.name} saw the progress go back: {steps}")

    def _percents(self, listener: Listener) -> list[int]:
        return [
            heard.fields.progress
            for heard in listener.heard
            if heard.fields.job_id == self._job.id and heard.fields.progress is not None
        ]

    def _draw(self, heard: Heard) -> None:
        if heard.fields.progress is None:
            return
        latest = {listener.name: _latest(listener) for listener in self._both}
        self._printer.progress(latest, heard.fields.message or "done")


def _says_active(heard: Heard) -> bool:
    return heard.name == "subscription:updated" and heard.fields.status == "active"


def _latest(listener: Listener) -> int:
    return next((heard.fields.progress for heard in reversed(listener.heard) if heard.fields.progress is not None), 0)
