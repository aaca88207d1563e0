"""Reports over REST: as JSON, as a file for spreadsheets, and about months."""

import csv
import io

import pytest

from tests.handlers.test_super_admin_plans import promoted
from tests.support.billing import eventually
from tests.support.people import Person, RegisterCompany
from tests.support.running import Orchestrator

pytestmark = pytest.mark.embedded


@pytest.fixture
async def boss(orchestrator: Orchestrator, company: RegisterCompany) -> Person:
    """One of the platform's people."""
    return await promoted(orchestrator, await company("Platform"), is_superuser=True)


async def bought(owner: Person) -> None:
    """Buy the professional plan by the sandbox, to the end."""
    _, plans = await owner.get("billing/plans")
    plan = next(plan for plan in plans["data"] if plan["slug"] == "professional")
    body = {
        "plan_id": plan["id"], "payment_provider": "sandbox", "billing_period": "yearly",
        "success_url": "http://localhost:3000/", "cancel_url": "http://localhost:3000/",
    }  # fmt: skip
    status, answer = await owner.post("billing/checkout", body)
    assert status == 200, answer
    async with owner.http.post(answer["checkout_url"], data={"action": "pay"}, allow_redirects=False) as response:
        assert response.status == 303


async def test_an_owner_sees_what_was_spent_as_lines_and_as_a_file(company: RegisterCompany) -> None:
    owner = await company()
    assert await owner.get("billing/report") == (
        200, {"status": "success", "data": [], "error": None, "pagination": None},
    )  # fmt: skip
    await bought(owner)
    data = await until_charged(owner)
    (line,) = data
    assert set(line) == {"month", "currency", "charged", "refunded", "disputed", "credits", "net"}
    assert (line["charged"], line["net"], line["refunded"], line["currency"]) == (499.99, 499.99, 0, "USD")
    async with owner.http.get(
        f"{owner.url}/api/v1/billing/report?format=csv", headers={"Authorization": f"Bearer {owner.token}"}
    ) as response:
        assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert response.headers["Content-Disposition"] == 'attachment; filename="report.csv"'
        text = (await response.read()).decode("utf-8-sig")
    head, row = csv.reader(io.StringIO(text, newline=""))
    assert head == ["month", "currency", "charged", "refunded", "disputed", "credits", "net"]
    assert row[1:] == ["USD", "499.99", "0.00", "0.00", "0.00", "499.99"]
    # Another tenant sees nothing of it.
    _, answer = await (await company()).get("billing/report")
    assert answer["data"] == []


async def until_charged(owner: Person) -> list[dict[str, object]]:
    async def look() -> list[dict[str, object]]:
        _, answer = await owner.get("billing/report")
        return list(answer["data"])

    return await eventually(look, bool)


async def test_the_platforms_people_see_all_of_it(company: RegisterCompany, boss: Person) -> None:
    owner = await company()
    await bought(owner)
    await until_charged(owner)
    status, answer = await boss.get("super-admin/reports/revenue")
    assert status == 200
    line = next(line for line in answer["data"] if (line["provider"], line["plan"]) == ("sandbox", "professional"))
    assert line["charged"] >= 499.99
    _, answer = await boss.get("super-admin/reports/recurring")
    line = answer["data"][-1]
    assert line["mrr_end"] >= 41.67
    assert line["customers_new"] >= 1
    _, answer = await boss.get("super-admin/reports/plans")
    assert {"professional"} <= {line["plan"] for line in answer["data"]}
    # Merchants of other tests have paid commission to the same platform.
    status, answer = await boss.get("super-admin/reports/commission")
    assert (status, {line["provider"] for line in answer["data"]} <= {"orders"}) == (200, True)
    for report in ("recurring", "revenue", "plans", "commission"):
        status, text = await boss.get(f"super-admin/reports/{report}?format=csv")
        assert status == 200
        assert text.count("\r\n") >= 1
        assert (await owner.get(f"super-admin/reports/{report}"))[0] == 403


@pytest.mark.parametrize(
    "query",
    [
        "from=2027",
        "from=2026-13",
        "from=2026-05&to=2026-04",
        "from=2001-01&to=2026-01",
        "to=0001-01",
        "from=9999-12&to=9999-12",
        "format=xml",
    ],
)
async def test_what_is_no_month_is_refused(company: RegisterCompany, query: str) -> None:
    owner = await company()
    status, answer = await owner.get(f"billing/report?{query}")
    assert (status, answer["message"]) == (422, "Validation error")
    assert (await owner.get("billing/report?from=2026-04&to=2026-05"))[0] == 200
