"""Notifications over REST (contract.md 7.3, appendix A)."""

from uuid import uuid4

from tests.handlers.provisioned import colleague, with_site
from tests.support.people import RegisterCompany

KEYS = {
    "id", "tenant_id", "user_id", "type", "title", "message", "data", "link", "read", "read_at", "created_at",
}  # fmt: skip


async def test_reading_what_one_was_told(company: RegisterCompany) -> None:
    owner = await with_site(company)

    status, answer = await owner.get("notifications")
    assert status == 200
    assert set(answer) == {"status", "data", "error", "pagination"}
    assert answer["pagination"] == {"total": 1, "page": 1, "size": 20, "pages": 1}
    [told] = answer["data"]
    assert set(told) == KEYS
    assert (told["type"], told["title"], told["read"], told["read_at"]) == ("success", "Site created", False, None)
    assert told["user_id"] == str(owner.user_id)
    assert await owner.get("notifications/unread-count") == (
        200,
        {"status": "success", "data": {"count": 1}, "error": None},
    )

    status, answer = await owner.post(f"notifications/{told['id']}/read")
    assert status == 200
    assert answer["data"]["read"] is True
    assert answer["data"]["read_at"].endswith("Z")
    assert (await owner.post(f"notifications/{told['id']}/read"))[1] == answer

    for query, count in (("unread=true", 0), ("unread=false", 1), ("unread=", 1), ("unread=1", 0), ("", 1)):
        _, listed = await owner.get(f"notifications?{query}")
        assert (query, len(listed["data"])) == (query, count)
    assert (await owner.get("notifications?unread=perhaps"))[0] == 422


async def test_everything_is_read_at_once(company: RegisterCompany) -> None:
    owner = await with_site(company)

    everything = {"status": "success", "data": {"count": 1}, "error": None}
    assert await owner.post("notifications/read-all") == (200, everything)
    assert (await owner.post("notifications/read-all"))[1]["data"] == {"count": 0}
    assert (await owner.get("notifications/unread-count"))[1]["data"] == {"count": 0}


async def test_what_others_were_told_does_not_exist(company: RegisterCompany) -> None:
    owner = await with_site(company)
    stranger, member = await company(), await colleague(company, owner, "member")
    _, answer = await owner.get("notifications")
    told = answer["data"][0]["id"]

    for person in (stranger, member):
        for wanted in (told, uuid4()):
            status, refusal = await person.post(f"notifications/{wanted}/read")
            assert (status, refusal["detail"], refusal["error"]["code"]) == (404, "Notification not found", "NOT_FOUND")
    assert (await member.get("notifications"))[1]["data"] == []
    assert (await owner.post("notifications/42/read"))[0] == 422
    assert (await owner.get("notifications/unread-count"))[1]["data"] == {"count": 1}
