"""Positions and pids: what clients bring back, and everything that somebody else might bring in their place."""

from uuid import uuid4

import pytest

from realtime.position import PidDesk, Position

TENANT, USER = uuid4(), uuid4()
DESK = PidDesk(b"a key")


@pytest.mark.parametrize(
    "position", [Position("k3f9", 1042), Position("", 0), Position("a" * 32, 10**18), Position("0", 0)], ids=str
)
def test_a_position_is_read_as_it_was_written(position: Position) -> None:
    assert Position.parse(str(position)) == position


def test_it_is_written_as_clients_know_it() -> None:
    assert str(Position("k3f9", 1042)) == "k3f9.1042"


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        1.5,
        True,
        b"a.1",
        ["a.1"],
        {"epoch": "a", "seq": 1},
        "",
        ".",
        "a",
        "1",
        "a.",
        "a.-1",
        "a.+1",
        "a. 1",
        "a.1 ",
        "a.1.2",
        "a.1e3",
        "a.0x1",
        "a.1_0",
        "a.١",
        "a.²",
        "a." + "9" * 20,
        "a" * 33 + ".1",
        "hello world",
    ],
    ids=repr,
)
def test_anything_else_is_no_position(value: object) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(value)


class TestPids:
    def test_a_pid_gives_its_socket_back(self) -> None:
        pid = DESK.issue("sid", namespace="/", tenant_id=TENANT, user_id=USER)
        assert pid.isascii()
        assert DESK.read(pid, namespace="/", tenant_id=TENANT, user_id=USER) == "sid"
        # It outlives the process that issued it.
        assert PidDesk(b"a key").read(pid, namespace="/", tenant_id=TENANT, user_id=USER) == "sid"

    def test_it_is_good_for_its_owner_and_place_only(self) -> None:
        pid = DESK.issue("sid", namespace="/", tenant_id=TENANT, user_id=USER)
        assert DESK.read(pid, namespace="/ws", tenant_id=TENANT, user_id=USER) is None
        assert DESK.read(pid, namespace="/", tenant_id=uuid4(), user_id=USER) is None
        assert DESK.read(pid, namespace="/", tenant_id=TENANT, user_id=uuid4()) is None
        assert DESK.read(pid, namespace="/", tenant_id=USER, user_id=TENANT) is None
        assert PidDesk(b"another").read(pid, namespace="/", tenant_id=TENANT, user_id=USER) is None

    def test_every_character_of_it_counts(self) -> None:
        pid = DESK.issue("some-Socket_id", namespace="/", tenant_id=TENANT, user_id=USER)
        for at, character in enumerate(pid):
            forged = pid[:at] + ("A" if character != "A" else "B") + pid[at + 1 :]
            assert DESK.read(forged, namespace="/", tenant_id=TENANT, user_id=USER) is None
            assert DESK.read(pid[:at] + pid[at + 1 :], namespace="/", tenant_id=TENANT, user_id=USER) is None

    @pytest.mark.parametrize(
        "pid",
        [None, 5, True, [], {}, b"a.b", "", ".", "sid", "sid.", ".mac", "sid.mac", "сид.мак", "\udcff.x"],
        ids=repr,
    )
    def test_noise_is_none(self, pid: object) -> None:
        assert DESK.read(pid, namespace="/", tenant_id=TENANT, user_id=USER) is None

    def test_no_socket_has_no_id(self) -> None:
        pid = DESK.issue("", namespace="/", tenant_id=TENANT, user_id=USER)
        assert DESK.read(pid, namespace="/", tenant_id=TENANT, user_id=USER) is None
