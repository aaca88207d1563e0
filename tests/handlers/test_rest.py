"""The frame of the REST door: parsing, refusing, answering, and giving nothing away (contract.md 1)."""

import gzip
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientPayloadError, ClientResponse
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from core.errors import ErrorKind
from handlers.context import RateRules
from handlers.errors import STATUS_OF
from tests.handlers.frame import MAX_BODY_BYTES, TENANT_ID, USER_ID, Client, open_door, refusal

# The table of contract.md 1.3 to 1.5 and 9.8, written down once more so that a change of it is noticed.
STATUSES = {
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.PAYMENT_REQUIRED: 402,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.GONE: 410,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.INVALID: 422,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.UNAVAILABLE: 503,
}


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """What was logged, which would else be printed."""
    with capture_logs(processors=[merge_contextvars]) as lines:
        yield lines


@pytest.fixture(scope="module")
async def door(engine: AsyncEngine) -> AsyncIterator[Client]:
    async with open_door(engine) as client:
        yield client


async def refused_fields(response: ClientResponse) -> list[tuple[str, str]]:
    body = await refusal(response, 422, "VALIDATION_ERROR")
    assert body["detail"] == "Validation error"
    assert all(set(error) == {"field", "message", "type"} and error["message"] for error in body["errors"])
    return [(error["field"], error["type"]) for error in body["errors"]]


class TestBody:
    async def test_is_understood(self, door: Client) -> None:
        body = {"name": " Ромашка ", "count": 2, "parts": [1, 2], "note": None, "unknown": {"a": [1]}}
        response = await door.post("/things", json=body)
        assert response.status == 201
        assert await response.json() == {
            "status": "success",
            "data": {"id": str(USER_ID), "name": "Ромашка|2|[1, 2]|None", "price": 99.0},
            "error": None,
        }
        assert '"price":99.00' in await response.text()

    async def test_needs_no_content_type(self, door: Client) -> None:
        response = await door.post("/old/things", data=b'{"name":"x"}', headers={"Content-Type": "text/plain"})
        assert response.status == 201

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"  \n",
            b"{",
            b"not json",
            b"{'name': 'x'}",
            b"\xff\xfe",
            b"NaN",
            b'{"name":"x"} trailing',
            rb'{"name":"\ud800"}',
            rb'{"name":"a\u0000b"}',
            rb'{"name":"x","unknown":[{"deep":"\u0000"}]}',
        ],
        ids=range(11),
    )
    async def test_that_is_malformed_is_refused(self, door: Client, data: bytes) -> None:
        response = await door.post("/things", data=data)
        assert await refused_fields(response) == [("body", "json_invalid")]

    async def test_that_is_nested_beyond_reason_is_refused(self, door: Client) -> None:
        for depth in (950, 1010, 1300):
            response = await door.post("/things", data=b"[" * depth + b"]" * depth)
            assert await refused_fields(response) == [("body", "json_invalid")]

    @pytest.mark.parametrize("value", [None, [], "text", 5, True, [{"name": "x"}]], ids=repr)
    async def test_that_is_no_object_is_refused(self, door: Client, value: object) -> None:
        (field,) = await refused_fields(await door.post("/things", json=value))
        assert field[0] == "body"

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": ...}, ("body -> name", "missing")),
            ({"name": None}, ("body -> name", "string_type")),
            ({"name": 5}, ("body -> name", "string_type")),
            ({"name": {"$ne": None}}, ("body -> name", "string_type")),
            ({"name": ""}, ("body -> name", "string_too_short")),
            ({"name": "   "}, ("body -> name", "string_too_short")),
            ({"name": "x" * 21}, ("body -> name", "string_too_long")),
            ({"count": 0}, ("body -> count", "greater_than_equal")),
            ({"count": "many"}, ("body -> count", "int_parsing")),
            ({"count": 1.5}, ("body -> count", "int_from_float")),
            ({"count": None}, ("body -> count", "int_type")),
            ({"parts": "1,2"}, ("body -> parts", "list_type")),
            ({"parts": [1, "x"]}, ("body -> parts -> 1", "int_parsing")),
        ],
    )
    async def test_of_wrong_types_names_the_field(
        self, door: Client, change: dict[str, object], field: tuple[str, str]
    ) -> None:
        body = {key: value for key, value in {"name": "x", **change}.items() if value is not ...}
        assert await refused_fields(await door.post("/things", json=body)) == [field]

    async def test_names_every_refused_field_at_once(self, door: Client) -> None:
        fields = await refused_fields(await door.post("/things", json={"count": 0, "parts": 1}))
        assert [field for field, _ in fields] == ["body -> name", "body -> count", "body -> parts"]

    async def test_a_refusal_does_not_repeat_the_input(self, door: Client) -> None:
        response = await door.post("/things", json={"name": ["hunter2"], "note": {"password": "hunter2"}})
        await refused_fields(response)
        assert "hunter2" not in await response.text()

    async def test_unknown_keys_are_refused_where_they_are_forbidden(self, door: Client) -> None:
        fields = await refused_fields(await door.post("/things/strict", json={"name": "x", "role": "owner"}))
        assert fields == [("body -> role", "extra_forbidden")]

    @pytest.mark.parametrize("data", [b"", b"  ", b"null", b"{}"], ids=repr)
    async def test_may_be_left_out_where_it_is_not_required(self, door: Client, data: bytes) -> None:
        response = await door.post("/things/optional", data=data)
        assert (response.status, await response.json()) == (
            200,
            {"status": "success", "message": "None", "data": {"note": None}},
        )

    async def test_that_may_be_left_out_must_still_be_well_formed(self, door: Client) -> None:
        assert await refused_fields(await door.post("/things/optional", data=b"{")) == [("body", "json_invalid")]

    async def test_too_large_is_told_so(self, door: Client) -> None:
        data = b'{"name":"' + b"x" * MAX_BODY_BYTES + b'"}'
        await refusal(await door.post("/things", data=data), 413, "PAYLOAD_TOO_LARGE")

    async def test_too_large_without_a_length_is_told_so(self, door: Client) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b" " * 1000

        await refusal(await door.post("/things", data=pieces()), 413, "PAYLOAD_TOO_LARGE")

    async def test_that_unpacks_to_too_much_is_told_so(self, door: Client) -> None:
        data = gzip.compress(b" " * 1_000_000)
        assert len(data) < MAX_BODY_BYTES
        response = await door.post("/things", data=data, headers={"Content-Encoding": "gzip"})
        await refusal(response, 413, "PAYLOAD_TOO_LARGE")

    async def test_may_be_packed(self, door: Client) -> None:
        data = gzip.compress(b'{"name":"packed"}')
        response = await door.post("/things", data=data, headers={"Content-Encoding": "gzip"})
        assert response.status == 201

    async def test_that_is_packed_wrongly_is_the_clients_fault(self, door: Client) -> None:
        response = await door.post("/things", data=b"not gzip", headers={"Content-Encoding": "gzip"})
        await refusal(response, 400, "BAD_REQUEST")
        assert response.headers["Connection"] == "close"

    @pytest.mark.parametrize("coding", ["compress", "gzip, gzip", "x"])
    async def test_that_is_packed_in_an_unknown_way_is_not_guessed_at(self, door: Client, coding: str) -> None:
        response = await door.post("/things", data=b'{"name":"x"}', headers={"Content-Encoding": coding})
        await refusal(response, 415, "UNSUPPORTED_MEDIA_TYPE")
        assert response.headers["Accept-Encoding"] == "gzip, deflate"


class TestQueryAndPath:
    async def test_a_page_is_clamped_silently(self, door: Client) -> None:
        for query, expected in (
            ("", {"total": 41, "page": 1, "size": 20, "pages": 3}),
            ("?page=2&size=10", {"total": 41, "page": 2, "size": 10, "pages": 5}),
            ("?page=0&size=999", {"total": 41, "page": 1, "size": 100, "pages": 1}),
            ("?page=-3&size=0", {"total": 41, "page": 1, "size": 1, "pages": 41}),
            ("?page=99999999999999999999", {"total": 41, "page": 2**31, "size": 20, "pages": 3}),
        ):
            body = await (await door.get(f"/things{query}")).json()
            assert body["pagination"] == expected, query
            assert body["data"][0]["name"] == f"{expected['page']}/{expected['size']}"
            assert (body["status"], body["error"]) == ("success", None)

    async def test_an_empty_list_has_no_pages(self, door: Client) -> None:
        assert await (await door.get("/things/empty")).json() == {
            "status": "success",
            "data": [],
            "error": None,
            "pagination": {"total": 0, "page": 1, "size": 20, "pages": 0},
        }

    async def test_a_list_without_pages_says_so(self, door: Client) -> None:
        body = await (await door.get("/things/many")).json()
        assert body["pagination"] is None
        assert len(body["data"]) == 1

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("size=abc", ("query -> size", "int_parsing")),
            ("page=1.5", ("query -> page", "int_parsing")),
            ("page=", ("query -> page", "int_parsing")),
            ("page=%00", ("query", "value_error")),
            ("page=" + "9" * 5000, ("query -> page", "int_parsing_size")),
        ],
        ids=range(5),
    )
    async def test_what_is_no_number_is_refused(self, door: Client, query: str, field: tuple[str, str]) -> None:
        assert await refused_fields(await door.get(f"/things?{query}")) == [field]

    async def test_a_query_is_understood(self, door: Client) -> None:
        body = await (await door.get("/things/search?q=%D0%A0%20%26&unread=true&page=2&other=1")).json()
        assert body["message"] == "Р &|True|2"

    async def test_a_missing_key_is_named(self, door: Client) -> None:
        fields = await refused_fields(await door.get("/things/search?unread=perhaps"))
        assert fields == [("query -> q", "missing"), ("query -> unread", "bool_parsing")]

    async def test_an_id_in_the_path_is_understood(self, door: Client) -> None:
        thing_id = uuid4()
        for text in (str(thing_id), str(thing_id).upper(), thing_id.hex):
            body = await (await door.get(f"/things/by-id/{text}")).json()
            assert body["data"]["id"] == str(thing_id)

    @pytest.mark.parametrize("text", ["5", "not-a-uuid", "%00", "..%2f..", "null"])
    async def test_an_id_that_is_none_is_refused(self, door: Client, text: str) -> None:
        ((field, _),) = await refused_fields(await door.get(f"/things/by-id/{text}"))
        assert field in {"path -> thing_id", "path"}

    async def test_text_in_the_path_is_decoded_once(self, door: Client) -> None:
        body = await (await door.get("/things/by-name/%D0%B0%2520b")).json()
        assert body["data"]["name"] == "а%20b"

    @pytest.mark.parametrize("path", ["/things/by-name/%ff", "/things/search?q=%ff", "/things/by-name/%ed%a0%80"])
    async def test_what_is_no_utf_8_breaks_nothing(self, door: Client, path: str) -> None:
        response = await door.get(path)
        assert response.status < 500


class TestAnswers:
    @pytest.mark.parametrize(
        ("path", "headers"),
        [("/things/flat?raw=1", {}), ("/things/flat", {"X-Response-Format": "RAW"})],
    )
    async def test_the_raw_form_has_no_envelope(self, door: Client, path: str, headers: dict[str, str]) -> None:
        response = await door.get(path, headers=headers)
        assert await response.json() == {"id": str(USER_ID), "name": "flat", "price": 1.0}

    async def test_a_raw_list_is_bare(self, door: Client) -> None:
        assert await (await door.get("/things/empty?raw=1")).json() == []
        assert isinstance(await (await door.get("/things?raw=1")).json(), list)

    async def test_anything_else_is_enveloped(self, door: Client) -> None:
        for path in ("/things/flat?raw=0", "/things/flat?raw=true"):
            assert "data" in await (await door.get(path)).json()

    async def test_flat_keys_stand_at_the_top_as_well(self, door: Client) -> None:
        body = await (await door.get("/things/flat")).json()
        assert body == {
            "status": "success",
            "data": {"id": str(USER_ID), "name": "flat", "price": 1.0},
            "error": None,
            "id": str(USER_ID),
            "price": 1.0,
        }

    async def test_a_message_has_no_data_unless_there_is_some(self, door: Client) -> None:
        assert await (await door.get("/things/search?q=x")).json() == {"status": "success", "message": "x|False|1"}


class TestAccess:
    @pytest.mark.parametrize("path", ["/things/mine", "/things/ours", "/things/anybody"])
    async def test_without_a_token_nobody_enters(self, door: Client, path: str) -> None:
        response = await door.get(path)
        body = await refusal(response, 401, "AUTH_ERROR")
        assert body["detail"] == "Not authenticated"
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("value", ["Bearer", "Bearer ", "member", "Basic member", "Bearer  ", "Token member", ""])
    async def test_other_schemes_are_none(self, door: Client, value: str) -> None:
        response = await door.get("/things/mine", headers={"Authorization": value})
        assert (await refusal(response, 401, "AUTH_ERROR"))["detail"] == "Not authenticated"

    @pytest.mark.parametrize("value", ["Bearer member", "bearer member", "BEARER  member "])
    async def test_a_token_opens(self, door: Client, value: str) -> None:
        response = await door.get("/things/ours", headers={"Authorization": value})
        assert (response.status, (await response.json())["message"]) == (200, str(TENANT_ID))

    async def test_a_wrong_token_does_not(self, door: Client) -> None:
        response = await door.get("/things/mine", headers={"Authorization": "Bearer forged"})
        await refusal(response, 401, "AUTH_ERROR")
        assert response.headers["WWW-Authenticate"] == "Bearer"

    async def test_a_token_without_a_tenant_opens_less(self, door: Client) -> None:
        headers = {"Authorization": "Bearer nobody"}
        assert (await door.get("/things/mine", headers=headers)).status == 200
        body = await refusal(await door.get("/things/ours", headers=headers), 401, "TENANT_ERROR")
        assert body["detail"] == "No tenant in token"

    async def test_the_token_is_asked_for_before_the_body_is_read(self, door: Client) -> None:
        """A stranger learns nothing about what a protected endpoint would take."""
        assert (await door.get("/things/ours?page=x")).status == 401

    async def test_limits_count_by_address_and_by_user(self, engine: AsyncEngine) -> None:
        rules = RateRules(auth_per_ip="3/minute", sso_per_user="", webhooks_per_ip="", user_total="2/minute")
        async with open_door(engine, rules=rules) as door:
            assert [(await door.get("/things/limited")).status for _ in range(3)] == [200] * 3
            response = await door.get("/things/limited")
            await refusal(response, 429, "RATE_LIMITED")
            assert 1 <= int(response.headers["Retry-After"]) <= 61
            assert (await door.get("/things/client")).status == 200, "another endpoint has no such rule"
            headers = {"Authorization": "Bearer member"}
            statuses = [(await door.get("/things/mine", headers=headers)).status for _ in range(3)]
            assert statuses == [200, 200, 429]

    async def test_whoever_has_many_addresses_counts_once(self, engine: AsyncEngine) -> None:
        rules = RateRules(auth_per_ip="3/minute", sso_per_user="", webhooks_per_ip="", user_total="")
        async with open_door(engine, rules=rules, trusted_proxies=["127.0.0.0/8"]) as door:

            async def ask(path: str, address: str) -> ClientResponse:
                return await door.get(path, headers={"X-Forwarded-For": address})

            mine = [f"2001:db8:1:2::{number:x}" for number in range(1, 6)]
            assert [(await ask("/things/limited", one)).status for one in mine] == [200, 200, 200, 429, 429]
            assert (await ask("/things/limited", "2001:db8:1:3::1")).status == 200, "the next network is another's"
            written = ["192.0.2.1", "::ffff:192.0.2.1"] * 2
            assert [(await ask("/things/limited", one)).status for one in written] == [200, 200, 200, 429]
            data = (await (await ask("/things/client", mine[4])).json())["data"]
            assert data["ip"] == data["trace_ip"] == mine[4], "the audit tells the whole address"


class TestErrors:
    def test_every_kind_has_its_status(self) -> None:
        assert STATUS_OF == STATUSES

    @pytest.mark.parametrize("kind", ErrorKind)
    async def test_a_domain_error_becomes_its_status(self, door: Client, kind: ErrorKind) -> None:
        await refusal(await door.get(f"/things/fail/{kind.value}"), STATUSES[kind], kind.name)

    async def test_what_an_error_says_arrives(self, door: Client) -> None:
        body = await refusal(await door.get("/things/fail/teapot"), 409, "TEAPOT")
        assert body["error"] == {"code": "TEAPOT", "message": "Short and stout", "details": {"handle": 1}}
        body = await refusal(await door.get("/things/fail/fields"), 422, "VALIDATION_ERROR")
        assert body["errors"] == [{"field": "body -> x", "message": "m", "type": "t"}]
        assert body["error"]["details"] == {"more": 2}
        response = await door.get("/things/fail/slow-down")
        await refusal(response, 429, "RATE_LIMITED")
        assert response.headers["Retry-After"] == "7"

    @pytest.mark.parametrize("name", ["unexpected", "key"])
    async def test_the_unexpected_leaks_nothing_and_is_logged(self, door: Client, logs: list[Any], name: str) -> None:
        response = await door.get(f"/things/fail/{name}", headers={"X-Request-ID": "abc-1"})
        body = await refusal(response, 500, "INTERNAL")
        assert body["detail"] == "Internal server error"
        assert body["error"]["details"] == {"request_id": "abc-1"}
        assert "secret" not in await response.text()
        assert "Traceback" not in await response.text()
        (line,) = [line for line in logs if line["log_level"] == "error"]
        assert line["request_id"] == "abc-1"
        assert line["exc_info"]

    async def test_a_refusal_is_no_alarm(self, door: Client, logs: list[Any]) -> None:
        await door.get("/things/fail/teapot")
        await door.get("/nowhere")
        assert {line["log_level"] for line in logs} == {"info"}

    @pytest.mark.parametrize("path", ["/nowhere", "/", "/things/", "/things/by-id", "/%00"])
    async def test_an_unknown_path(self, door: Client, path: str) -> None:
        await refusal(await door.get(path), 404, "NOT_FOUND")

    async def test_a_wrong_method_is_told_the_right_ones(self, door: Client) -> None:
        response = await door.put("/things", json={})
        await refusal(response, 405, "METHOD_NOT_ALLOWED")
        assert set(response.headers["Allow"].split(",")) == {"GET", "POST"}

    async def test_answers_of_the_frame_itself(self, door: Client) -> None:
        response = await door.get("/things/fail/not-acceptable")
        await refusal(response, 406, "HTTP_ERROR")
        assert "secret" not in await response.text()
        response = await door.get("/things/fail/redirect", allow_redirects=False)
        assert (response.status, response.headers["Location"]) == (302, "/elsewhere")
        assert response.headers["X-Request-ID"]


async def test_an_answer_that_fails_midway_is_broken_off(door: Client) -> None:
    """A second answer within the first would be taken for its content."""
    response = await door.get("/things/broken-off")
    assert response.status == 200
    with pytest.raises(ClientPayloadError):
        await response.read()
    assert (await door.get("/things/many")).status == 200
