"""Plans, tariffs and the content of the public pages over REST: forms field by field, races, and who may."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, select, update

from models.audit import AuditEntry
from models.platform import PlatformContent
from models.users import User
from services.unit_of_work import PlatformScope
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

SCOPE = PlatformScope("a test looks at the platform")


@pytest.fixture
async def boss(orchestrator: Orchestrator, company: RegisterCompany) -> Person:
    """One of the platform's people."""
    return await promoted(orchestrator, await company("Platform"), is_superuser=True)


async def promoted(orchestrator: Orchestrator, person: Person, **marks: bool) -> Person:
    async with orchestrator.units(SCOPE) as uow:
        await uow.session.execute(update(User).where(User.id == person.user_id).values(**marks))
    body = {"email": person.email, "password": person.password}
    _, answer = await request(person.http, "POST", address(person.url, "auth/login"), json=body)
    person.token = answer["data"]["access_token"]
    return person


async def forget(orchestrator: Orchestrator, *keys: str) -> None:
    async with orchestrator.units(SCOPE) as uow:
        await uow.session.execute(delete(PlatformContent).where(PlatformContent.key.in_(keys)))


async def put(person: Person, path: str, json: object = None) -> tuple[int, Any]:
    return await person.request("PUT", path, json=json)


async def test_tariffs_are_the_first_ones_until_somebody_changes_them(boss: Person, orchestrator: Orchestrator) -> None:
    await forget(orchestrator, "pricing")
    status, answer = await boss.get("super-admin/tariffs")
    assert status == 200
    start, growth, premium = answer["tariffs"]
    assert start == {
        "id": "start",
        "name": "Старт",
        "price": "0",
        "period": "месяц",
        "description": "",
        "features": [],
        "popular": False,
        "active": True,
    }
    assert (growth["name"], growth["price"], growth["popular"]) == ("Профессионал", "2990", True)
    assert (premium["id"], premium["name"], premium["price"]) == ("premium", "Бизнес", "7990")

    # Two at once, of which neither is lost.
    answers = await asyncio.gather(
        put(boss, "super-admin/tariffs/growth", {"id": "growth", "price": 3490, "features": ["Поддержка"]}),
        put(boss, "super-admin/tariffs/premium", {"active": False}),
    )
    assert answers[0] == (200, {"status": "ok", "message": "Tariff growth updated"})
    assert answers[1][0] == 200
    _, answer = await boss.get("super-admin/tariffs")
    assert answer["tariffs"] == [
        start,
        {**growth, "price": "3490", "features": ["Поддержка"]},
        {**premium, "active": False},
    ]
    status, answer = await put(boss, "super-admin/tariffs/none", {"active": False})
    assert (status, answer["detail"]) == (404, "Tariff not found")
    assert (await put(boss, "super-admin/tariffs/start", {"price": "free"}))[0] == 422
    async with orchestrator.units(SCOPE) as uow:
        entry = (
            await uow.session.scalars(
                select(AuditEntry).where(AuditEntry.actor_id == boss.user_id, AuditEntry.subject_id == "growth")
            )
        ).one()
    assert entry.details == {
        "before": {"price": "2990", "features": []},
        "after": {"price": "3490", "features": ["Поддержка"]},
    }


@pytest.mark.embedded
async def test_what_masters_wrote_that_is_no_tariff_is_kept_and_not_shown(
    boss: Person, orchestrator: Orchestrator
) -> None:
    odd = [{"id": "a", "name": "A", "price": 1, "badge": "new"}, "nonsense"]
    await put(boss, "platform/content/pricing", {"content": {"tariffs": odd, "note": "ours"}})
    assert (await put(boss, "super-admin/tariffs/a", {"name": "B"}))[0] == 200
    _, answer = await boss.get("super-admin/tariffs")
    assert [(tariff["name"], tariff["price"]) for tariff in answer["tariffs"]] == [("B", "1")]
    _, answer = await boss.get("platform/content")
    assert answer["pricing"]["content"] == {"tariffs": [{**odd[0], "name": "B"}, "nonsense"], "note": "ours"}  # type: ignore[dict-item]
    await forget(orchestrator, "pricing")


async def test_a_plan_is_made_changed_retired_and_brought_back(boss: Person) -> None:
    slug = f"plan-{uuid4().hex[:12]}"
    body = {
        "slug": slug,
        "name": "Enterprise",
        "price_monthly": "199.90",
        "price_yearly": 1999,
        "limits": {"users": -1, "sockets": {"connections": 5000}},
        "feature_flags": {"webhooks_enabled": True},
    }
    made, second = await asyncio.gather(*(boss.post("super-admin/plans", body) for _ in range(2)))
    assert sorted((made[0], second[0])) == [201, 409]
    plan = next(answer["data"] for status, answer in (made, second) if status == 201)
    assert (plan["slug"], plan["price_monthly"], plan["max_users"], plan["currency"]) == (slug, 199.9, -1, "USD")
    assert plan["limits"]["sockets"] == {"connections": 5000}
    path = f"super-admin/plans/{plan['id']}"

    status, answer = await boss.patch(path, {"price_monthly": 249, "slug": "other"})
    assert status == 200
    assert (answer["data"]["price_monthly"], answer["data"]["slug"]) == (249, slug)
    status, answer = await boss.patch(path, {"commission_percent": 2.5})
    assert (status, answer["data"]["commission_percent"]) == (200, 2.5)
    for bad in (
        {"commission_percent": 101},
        {"commission_percent": -1},
        {"price_monthly": -1},
        {"price_monthly": "1.001"},
        {"limits": {"users": "many"}},
        {"name": ""},
    ):
        assert (await boss.patch(path, bad))[0] == 422

    async def sold() -> bool:
        _, answer = await boss.get("billing/plans")
        return slug in {plan["slug"] for plan in answer["data"]}

    assert await sold()
    for _ in range(2):
        status, answer = await put(boss, f"{path}/retire")
        assert (status, answer["data"]["is_active"]) == (200, False)
    assert not await sold()
    _, answer = await boss.get("super-admin/plans")
    plans = {plan["slug"]: plan for plan in answer["data"]}
    assert plans[slug]["is_active"] is False
    order = {
        "plan_id": plan["id"],
        "billing_period": "monthly",
        "success_url": f"{boss.url}/done",
        "cancel_url": f"{boss.url}/cancelled",
    }
    status, answer = await boss.post("billing/checkout", order)
    assert (status, answer["detail"]) == (400, "Plan not found")
    status, answer = await put(boss, f"super-admin/plans/{plans['trial']['id']}/retire")
    assert (status, answer["error"]["code"]) == (409, "TRIAL_NOT_RETIRABLE")
    assert (await put(boss, f"{path}/restore"))[0] == 200
    assert await sold()
    assert (await put(boss, f"{path}/retire"))[0] == 200
    _, answer = await boss.get("super-admin/audit", params={"subject_id": plan["id"]})
    assert [entry["action"] for entry in answer["data"]] == [
        *("plan.retired", "plan.restored", "plan.retired", "plan.changed", "plan.changed", "plan.created"),
    ]
    assert answer["data"][4]["details"] == {"before": {"price_monthly": "199.90"}, "after": {"price_monthly": "249"}}


@pytest.mark.embedded
async def test_currencies_limits_and_features_that_do_not_exist_are_refused(boss: Person) -> None:
    fresh = {"slug": f"plan-{uuid4().hex[:12]}", "name": "Odd", "price_monthly": 10, "price_yearly": 100}
    unknown: list[tuple[dict[str, Any], str, list[str]]] = [
        ({"currency": "ZZZ"}, "UNKNOWN_CURRENCY", ["body -> currency"]),
        ({"limits": {"user": 5, "users": 5}}, "UNKNOWN_ENTITLEMENT", ["body -> limits -> user"]),
        ({"limits": {"sockets": {"colour": 3}}}, "UNKNOWN_ENTITLEMENT", ["body -> limits -> sockets -> colour"]),
        ({"feature_flags": {"magic": False}}, "UNKNOWN_ENTITLEMENT", ["body -> feature_flags -> magic"]),
    ]
    for change, code, fields in unknown:
        status, answer = await boss.post("super-admin/plans", {**fresh, **change})
        assert (status, answer["error"]["code"]) == (422, code)
        assert [error["field"] for error in answer["errors"]] == fields
    _, answer = await boss.get("super-admin/plans")
    assert fresh["slug"] not in {plan["slug"] for plan in answer["data"]}

    limits = {"max_users": 5, "products": 50, "staff": 1, "domains": 1, "sockets": {"payload_bytes": 9}}
    known = {"currency": "JPY", "limits": limits, "feature_flags": {"ai_assistant": True, "custom_themes": False}}
    status, answer = await boss.post("super-admin/plans", {**fresh, **known})
    assert status == 201
    plan = answer["data"]
    for change, code, _ in unknown[1:]:
        status, answer = await boss.patch(f"super-admin/plans/{plan['id']}", {"name": "Other", **change})
        assert (status, answer["error"]["code"]) == (422, code)
    status, answer = await boss.post(
        f"billing/plans/{plan['id']}/prices", {"provider": "liqpay", "amount": "7", "currency": "ZZZ"}
    )
    assert (status, answer["error"]["code"]) == (422, "UNKNOWN_CURRENCY")
    status, answer = await put(boss, f"super-admin/plans/{plan['id']}/retire")
    assert answer["data"] == {**plan, "is_active": False, "updated_at": answer["data"]["updated_at"]}
    _, answer = await boss.get("super-admin/audit", params={"subject_id": plan["id"]})
    assert [entry["action"] for entry in answer["data"]] == ["plan.retired", "plan.created"]


@pytest.mark.embedded
async def test_a_price_that_nobody_could_pay_is_refused(boss: Person) -> None:
    fresh = {"slug": f"plan-{uuid4().hex[:12]}", "name": "Yen", "currency": "JPY"}
    odd = {"price_monthly": "9.50", "price_yearly": "100"}
    status, answer = await boss.post("super-admin/plans", {**fresh, **odd})
    assert (status, answer["error"]["code"]) == (422, "VALIDATION_ERROR")
    assert [error["field"] for error in answer["errors"]] == ["body -> price_monthly"]
    status, answer = await boss.post("super-admin/plans", {**fresh, "price_monthly": "950.00", "price_yearly": 9500})
    assert status == 201, answer
    plan = answer["data"]["id"]
    status, answer = await boss.patch(f"super-admin/plans/{plan}", {"price_monthly": "9.01", "price_yearly": "9.10"})
    assert status == 422
    assert [error["field"] for error in answer["errors"]] == ["body -> price_monthly", "body -> price_yearly"]
    assert (await boss.patch(f"super-admin/plans/{plan}", {"name": "Other", "price_yearly": 9000}))[0] == 200
    price = {"provider": "stripe", "amount": "9.50", "currency": "JPY"}
    status, answer = await boss.post(f"billing/plans/{plan}/prices", price)
    assert (status, [error["field"] for error in answer["errors"]]) == (422, ["body -> amount"])
    # The name of both products of Coinbase is neither while no keys say which one is meant.
    for provider in ("nosuch", "coinbase"):
        status, answer = await boss.post(f"billing/plans/{plan}/prices", {**price, "provider": provider})
        assert (status, answer["error"]["code"]) == (422, "UNKNOWN_PROVIDER")
        (error,) = answer["errors"]
        assert error["field"] == "body -> provider"
        assert "coinbase_commerce, liqpay, paypal, sandbox, stripe" in error["message"]
    for provider in ("stripe", "coinbase_business"):
        told = {**price, "provider": provider, "amount": "950"}
        assert (await boss.post(f"billing/plans/{plan}/prices", told))[0] == 200
    assert (await put(boss, f"super-admin/plans/{plan}/retire"))[0] == 200


async def test_a_master_writes_content_and_everybody_sees_the_public_part(
    orchestrator: Orchestrator, company: RegisterCompany
) -> None:
    await forget(orchestrator, "hero_banner", "telegram_settings")
    master = await promoted(orchestrator, await company(), is_platform_master=True)
    url = address(master.url, "platform/content/public")
    assert await request(master.http, "GET", url) == (200, {"hero_banner": None, "telegram_settings": None})

    banner = {"title": "Всё в одном", "image": {"url": "/hero.png"}}
    status, answer = await put(master, "platform/content/hero_banner", {"content": {"title": "first"}})
    assert status == 200
    assert set(answer) == {"status", "key", "updated_at"}
    status, answer = await put(master, "platform/content/hero_banner", {"content": banner})
    assert (answer["status"], answer["key"]) == ("ok", "hero_banner")
    secret = {"content": {"link": "t.me/erp", "bot_token": "1:abc"}}
    assert (await put(master, "platform/content/telegram_settings", secret))[0] == 200

    _, public = await request(master.http, "GET", url)
    assert public["hero_banner"] == {"content": banner, "updated_at": answer["updated_at"]}
    assert public["telegram_settings"]["content"] == {"link": "t.me/erp", "bot_token": "[hidden]"}
    _, everything = await master.get("platform/content")
    assert everything["hero_banner"] == {
        "content": banner,
        "updated_at": answer["updated_at"],
        "updated_by": str(master.user_id),
    }
    assert (await master.get("super-admin/users"))[0] == 403
    await forget(orchestrator, "hero_banner", "telegram_settings")


@pytest.mark.embedded
async def test_bad_content_changes_nothing(boss: Person) -> None:
    deep: Any = {}
    for _ in range(20):
        deep = {"a": deep}
    for key, content in (
        ("Bad-Key", {}),
        ("k" * 65, {}),
        ("x", []),
        ("x", deep),
        ("x", {"n": 2**60}),
        ("x", {"t": "y" * 70_000}),
        ("x", {"t": "\0"}),
    ):
        status, _ = await put(boss, f"platform/content/{key}", {"content": content})
        assert status == 422, (key, content)
    _, everything = await boss.get("platform/content")
    assert "x" not in everything


@pytest.mark.embedded
async def test_nobody_else_is_let_in(company: RegisterCompany) -> None:
    owner = await company()
    plan = {"slug": "p", "name": "P", "price_monthly": 1, "price_yearly": 1}
    calls: list[tuple[str, str, object]] = [
        ("GET", "super-admin/tariffs", None),
        ("PUT", "super-admin/tariffs/start", {}),
        ("GET", "super-admin/plans", None),
        ("POST", "super-admin/plans", plan),
        ("PATCH", f"super-admin/plans/{uuid4()}", {}),
        ("PUT", f"super-admin/plans/{uuid4()}/retire", None),
        ("PUT", f"super-admin/plans/{uuid4()}/restore", None),
        ("GET", "platform/content", None),
        ("PUT", "platform/content/hero_banner", {"content": {}}),
    ]
    for method, path, body in calls:
        status, answer = await owner.request(method, path, json=body)
        assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED"), path
        assert (await request(owner.http, method, address(owner.url, path), json=body))[0] == 401, path
