"""Standing: whom a change concerns, for how long that is remembered, and what is not understood."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from models.tenants import Role
from services.identity import Principal
from services.standing import LEEWAY, AuthorityChanged, Standing, place_changed, sessions_ended, tenant_closed

TOKENS_LIVE = timedelta(minutes=15)
NOON = datetime(2025, 11, 20, 12, 0, tzinfo=UTC)
TENANT, OTHER_TENANT = UUID(int=1), UUID(int=2)
USER, OTHER_USER = UUID(int=11), UUID(int=12)
SESSION, OTHER_SESSION = UUID(int=21), UUID(int=22)


def principal(**changes: Any) -> Principal:
    fields: dict[str, Any] = {"user_id": USER, "session_id": SESSION, "tenant_id": TENANT, "role": Role.MEMBER}
    return Principal(**{**fields, "is_superuser": False, **changes})


def noted(*changes: AuthorityChanged, at: datetime = NOON) -> Standing:
    standing = Standing(memory=TOKENS_LIVE)
    for change in changes:
        standing.note(change.payload(), at)
    return standing


class TestDoubt:
    def test_nobody_is_doubted_without_a_reason(self) -> None:
        assert not noted().doubts(principal())
        assert noted().last_change(principal()) == 0

    @pytest.mark.parametrize(
        ("change", "doubted", "others"),
        [
            (
                sessions_ended([SESSION]),
                [principal(), principal(tenant_id=OTHER_TENANT), principal(tenant_id=None)],
                [principal(session_id=OTHER_SESSION)],
            ),
            (
                place_changed(TENANT, USER, Role.ADMIN),
                [principal(), principal(session_id=OTHER_SESSION)],
                [principal(tenant_id=OTHER_TENANT), principal(user_id=OTHER_USER), principal(tenant_id=None)],
            ),
            (
                tenant_closed(TENANT),
                [principal(), principal(user_id=OTHER_USER, session_id=OTHER_SESSION)],
                [principal(tenant_id=OTHER_TENANT), principal(tenant_id=None)],
            ),
        ],
        ids=["session", "place", "tenant"],
    )
    def test_a_change_concerns_those_whom_it_names(
        self, change: AuthorityChanged, doubted: list[Principal], others: list[Principal]
    ) -> None:
        standing = noted(change)
        assert [standing.doubts(one) for one in doubted] == [True] * len(doubted)
        assert [standing.doubts(one) for one in others] == [False] * len(others)

    def test_each_change_is_a_later_one(self) -> None:
        standing = noted(place_changed(TENANT, USER, Role.ADMIN))
        seen = [standing.last_change(principal())]
        for change in (tenant_closed(TENANT), sessions_ended([SESSION]), place_changed(TENANT, USER, Role.MEMBER)):
            standing.note(change.payload(), NOON)
            seen.append(standing.last_change(principal()))
        assert seen == sorted(set(seen))
        standing.note(tenant_closed(OTHER_TENANT).payload(), NOON)
        assert standing.last_change(principal()) == seen[-1]


class TestMemory:
    def test_it_outlasts_every_token(self) -> None:
        assert noted().memory == TOKENS_LIVE + 2 * LEEWAY

    def test_what_is_older_than_any_token_is_forgotten(self) -> None:
        standing = noted(sessions_ended([SESSION]))
        standing.note(tenant_closed(OTHER_TENANT).payload(), NOON + standing.memory)
        assert standing.doubts(principal()), "a token of then may still be good"
        standing.note(tenant_closed(OTHER_TENANT).payload(), NOON + standing.memory + timedelta(seconds=1))
        assert not standing.doubts(principal())

    def test_a_second_change_is_remembered_when_the_first_is_forgotten(self) -> None:
        standing = noted(place_changed(TENANT, USER, Role.ADMIN))
        standing.note(place_changed(TENANT, USER, Role.MEMBER).payload(), NOON + standing.memory / 2)
        before = standing.last_change(principal())
        standing.note(tenant_closed(OTHER_TENANT).payload(), NOON + standing.memory + timedelta(seconds=1))
        assert standing.last_change(principal()) == before
        standing.note(tenant_closed(OTHER_TENANT).payload(), NOON + 2 * standing.memory)
        assert not standing.doubts(principal())

    def test_nothing_stays_behind(self) -> None:
        standing = Standing(memory=TOKENS_LIVE)
        for number in range(1000):
            change = sessions_ended([UUID(int=number), UUID(int=number + 1)])
            standing.note(change.payload(), NOON + timedelta(minutes=number))
        minutes = standing.memory // timedelta(minutes=1)
        assert len(standing._changes) == minutes + 1
        assert len(standing._last) == minutes + 2


class TestWire:
    @pytest.mark.parametrize(
        "change",
        [
            sessions_ended([SESSION, OTHER_SESSION], code="USER_INACTIVE"),
            place_changed(TENANT, USER, Role.ADMIN),
            place_changed(TENANT, USER, None),
            tenant_closed(TENANT),
        ],
        ids=["sessions", "role", "removal", "tenant"],
    )
    def test_what_was_written_is_read_back(self, change: AuthorityChanged) -> None:
        assert Standing(memory=TOKENS_LIVE).note(change.payload(), NOON) == change

    @pytest.mark.parametrize(
        "payload",
        [{}, {"change": "planet_closed", "code": "X"}, {**tenant_closed(TENANT).payload(), "from_later": True}],
        ids=["nothing", "another kind", "another field"],
    )
    def test_what_another_release_wrote_is_left_out(self, payload: dict[str, Any]) -> None:
        standing = Standing(memory=TOKENS_LIVE)
        assert standing.note(payload, NOON) is None
        assert standing.note(sessions_ended([SESSION]).payload(), NOON) is not None
        assert standing.doubts(principal())
