"""What is sold and what the public pages say of it, for the platform's own people (contract.md 3.7, 4.2)."""

from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from core.money import Money
from handlers.envelope import Envelope, ListEnvelope
from handlers.rest import Access, Call, Router, WireModel, raw
from models.billing import PastDuePolicy
from services.billing.views import PlanView
from services.identity import SuperuserRequired
from services.platform.errors import PlanNotFound, PlanSlugTaken, TariffNotFound, TrialNotRetirable
from services.platform.views import DoneView, TariffListView
from services.unit_of_work import PlatformScope

router = Router(tag="platform", prefix="/api/v1/super-admin")

_SCOPE = PlatformScope("plans and tariffs belong to the platform")

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Text = Annotated[str, StringConstraints(max_length=2000)]
Features = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(max_length=50)]
Price = Annotated[Money, Field(ge=0, max_digits=10, decimal_places=2)]
Flags = Annotated[dict[str, bool], Field(max_length=50)]
# -1 means unlimited.
Limit = Annotated[int, Field(ge=-1, le=10**12)]


def _price_text(value: object) -> object:
    """Return a price that a client sent as a number as the text that all of them show."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class TariffBody(WireModel):
    """What to change; an absent or null field stays as it is."""

    name: Name | None = None
    price: Annotated[
        str | None, StringConstraints(pattern=r"^[0-9]{1,8}([.,][0-9]{1,2})?$"), BeforeValidator(_price_text)
    ] = None
    period: Annotated[str | None, StringConstraints(max_length=50)] = None
    description: Text | None = None
    features: Features | None = None
    popular: bool | None = None
    active: bool | None = None


class PlanLimits(BaseModel):
    """Limits by their names, such as `users` and `storage_gb`; `sockets` holds those of realtime."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Limit] = Field(init=False)

    sockets: dict[str, Limit] | None = None


class PlanFields(WireModel):
    """What to change of a plan; an absent or null field stays as it is."""

    name: Name | None = None
    description: Text | None = None
    price_monthly: Price | None = None
    price_yearly: Price | None = None
    limits: PlanLimits | None = None
    features: Features | None = None
    feature_flags: Flags | None = None
    commission_percent: Annotated[Money, Field(ge=0, le=100, max_digits=7, decimal_places=4)] | None = None
    trial_days: Annotated[int, Field(ge=0, le=365)] | None = None
    past_due_policy: PastDuePolicy | None = None
    sort_order: Annotated[int, Field(ge=0, le=10_000)] | None = None

    def values(self) -> dict[str, Any]:
        """Return the fields that were given."""
        return self.model_dump(exclude_none=True, exclude={"slug"})


class CreatePlanBody(PlanFields):
    """A new plan; its slug and its currency (ISO 4217) stay for ever."""

    slug: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$")]
    name: Name
    price_monthly: Price
    price_yearly: Price
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "USD"
    description: Text = ""
    limits: PlanLimits = Field(default_factory=PlanLimits)
    features: Features = Field(default_factory=list)
    feature_flags: Flags = Field(default_factory=dict)
    trial_days: Annotated[int, Field(ge=0, le=365)] = 14
    past_due_policy: PastDuePolicy = PastDuePolicy.EXPIRE
    sort_order: Annotated[int, Field(ge=0, le=10_000)] = 100


@router.get("/tariffs", answer=TariffListView, access=Access.USER, errors=(SuperuserRequired,))
async def list_tariffs(call: Call) -> web.Response:
    """List the tariffs that the public pages show."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.tariffs.list(uow, call.actor)
    return raw(view.model_dump())


@router.put("/tariffs/{tariff_id}", answer=DoneView, access=Access.USER, errors=(SuperuserRequired, TariffNotFound))
async def change_tariff(call: Call, tariff_id: str, body: TariffBody) -> web.Response:
    """Change a tariff."""
    changes = body.model_dump(exclude_none=True)
    async with call.uow(_SCOPE) as uow:
        await call.context.services.platform.tariffs.change(uow, call.actor, tariff_id=tariff_id, changes=changes)
    return raw(DoneView(message=f"Tariff {tariff_id} updated").model_dump())


@router.get("/plans", answer=ListEnvelope[PlanView], access=Access.USER, errors=(SuperuserRequired,))
async def list_all_plans(call: Call) -> web.Response:
    """List all plans, also the retired ones."""
    async with call.uow(_SCOPE) as uow:
        plans = await call.context.services.platform.plans.list(uow, call.actor)
    return call.many(plans)


@router.post(
    "/plans",
    answer=Envelope[PlanView],
    access=Access.USER,
    status=201,
    errors=(SuperuserRequired, PlanSlugTaken),
)
async def create_plan(call: Call, body: CreatePlanBody) -> web.Response:
    """Make a plan, which is sold at once."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.plans.create(uow, call.actor, slug=body.slug, values=body.values())
    return call.ok(view, status=201)


@router.patch(
    "/plans/{plan_id}", answer=Envelope[PlanView], access=Access.USER, errors=(SuperuserRequired, PlanNotFound)
)
async def change_plan(call: Call, plan_id: UUID, body: PlanFields) -> web.Response:
    """Change a plan; a new price concerns purchases to come."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.plans.change(uow, call.actor, plan_id=plan_id, values=body.values())
    return call.ok(view)


@router.put(
    "/plans/{plan_id}/retire",
    answer=Envelope[PlanView],
    access=Access.USER,
    errors=(SuperuserRequired, PlanNotFound, TrialNotRetirable),
)
async def retire_plan(call: Call, plan_id: UUID) -> web.Response:
    """Sell a plan no more; it lives on in its subscriptions."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.plans.retire(uow, call.actor, plan_id=plan_id)
    return call.ok(view)


@router.put(
    "/plans/{plan_id}/restore",
    answer=Envelope[PlanView],
    access=Access.USER,
    errors=(SuperuserRequired, PlanNotFound),
)
async def restore_plan(call: Call, plan_id: UUID) -> web.Response:
    """Sell a retired plan again."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.plans.restore(uow, call.actor, plan_id=plan_id)
    return call.ok(view)
