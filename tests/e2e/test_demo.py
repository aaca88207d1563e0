"""`orchestrator demo` plays the whole main job on a real server, and fails where a server does not keep its word."""

import io
from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from server.demo import play
from server.demo.browser import Browser
from server.demo.chronicle import check_chronicle
from server.demo.failure import StepFailed
from server.demo.listener import Fields, Heard, Listener
from server.demo.printing import Printer
from tests.support.running import Orchestrator
from tests.support.stores import free_port

_STEPS = 13


@pytest.fixture
def orchestrator(site_orchestrator: Orchestrator) -> Orchestrator:
    return site_orchestrator


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


async def test_whole_main_job_works_on_a_running_server(orchestrator: Orchestrator) -> None:
    stream = io.StringIO()
    code = await play(orchestrator.url, stream=stream)
    told = stream.getvalue()
    assert code == 0, told
    assert told.count("        ok (") == _STEPS
    assert told.endswith("The main job works.\n")
    assert "dashboard [##########] 100 %  phone [##########] 100 %" in told
    assert "1 payment:received" in told
    assert "\x1b" not in told


async def test_where_nothing_answers_the_demo_says_how_to_start_a_server() -> None:
    stream, url = io.StringIO(), f"http://127.0.0.1:{free_port()}"
    assert await play(url, silence_s=0.3, stream=stream) == 1
    assert f"FAILED: nothing answers at {url}" in stream.getvalue()
    assert "make run" in stream.getvalue()


async def test_silence_fails_the_first_step() -> None:
    stream = io.StringIO()
    code = await play(f"http://127.0.0.1:{free_port()}", total_s=0.3, stream=stream)
    assert code == 1
    assert "FAILED: the demo may take 0.3 s in all" in stream.getvalue()
    assert stream.getvalue().endswith("The main job does NOT work: step 1 of 13 failed.\n")


@pytest.fixture
async def half_a_server() -> AsyncIterator[str]:
    """A server that is ready and registers nobody."""

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"status": "ready", "environment": "test", "version": "0"})

    async def stranger(_: web.Request) -> web.Response:
        return web.Response(text="<h1>It works!</h1>")

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"status": "error", "data": None, "message": "Closed today"}, status=503)

    app = web.Application()
    app.router.add_get("/ready", ready)
    app.router.add_get("/other/ready", stranger)
    app.router.add_post("/api/v1/auth/register", refuse)
    running = TestServer(app)
    await running.start_server()
    yield str(running.make_url("")).rstrip("/")
    await running.close()


async def test_refusal_is_told_with_its_step_and_reason(half_a_server: str) -> None:
    stream = io.StringIO()
    code = await play(half_a_server, stream=stream)
    assert code == 1
    assert "FAILED: POST /api/v1/auth/register answered 503: Closed today" in stream.getvalue()
    assert "step 2 of 13 failed" in stream.getvalue()


async def test_another_server_is_not_taken_for_ours(half_a_server: str) -> None:
    stream = io.StringIO()
    assert await play(f"{half_a_server}/other", stream=stream) == 1
    assert "/other is not an orchestrator: /ready answered <h1>It works!</h1>" in stream.getvalue()


def _heard(seq: int, name: str = "status:update") -> Heard:
    return Heard("/ws", name, Fields(event_id=uuid4(), seq=seq))


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [([], "heard nothing"), ([1, 3, 2], "out of order: \\[1, 3, 2\\]"), ([4, 4], "out of order: \\[4, 4\\]")],
    ids=["silence", "disorder", "repeated number"],
)
async def test_chronicle_out_of_order_is_refused(numbers: list[int], fault: str) -> None:
    phone = Listener("phone", namespaces=("/ws",), transports=("websocket",))
    phone.heard += map(_heard, numbers)
    with pytest.raises(StepFailed, match=fault):
        check_chronicle(phone, "/ws")


async def test_event_heard_twice_is_refused_and_its_second_name_is_not() -> None:
    phone = Listener("phone", namespaces=("/ws",), transports=("websocket",))
    told = _heard(7, "notification:new")
    phone.heard += [told, Heard("/ws", "notification", told.fields)]
    assert check_chronicle(phone, "/ws") == ("phone /ws", "1", "7..7", "1 notification:new")
    phone.heard.append(told)
    with pytest.raises(StepFailed, match=f"heard events twice: {told.fields.event_id}"):
        check_chronicle(phone, "/ws")


def test_amounts_of_events_are_exact() -> None:
    assert Fields.model_validate({"event_id": str(uuid4()), "seq": 1, "amount": 99.9}).amount == Decimal("99.9")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["plain", "terminal"])
def test_bar_is_redrawn_on_a_terminal_only(stream: io.StringIO) -> None:
    printer = Printer(stream)
    for a, b in ((0, 0), (50, 0), (50, 50), (50, 50)):
        printer.progress({"a": a, "b": b}, "Work")
    printer.note("after")
    none, half = "[----------]   0 %", "[#####-----]  50 %"
    lines = [f"        a {a}  b {b}  Work" for a, b in ((none, none), (half, none), (half, half))]
    plain = f"{lines[0]}\n{lines[2]}\n"
    redrawn = "".join(f"\r\x1b[2K{line}" for line in lines) + "\n"
    assert stream.getvalue() == (redrawn if stream.isatty() else plain) + "        after\n"


@pytest.fixture
async def shop() -> AsyncIterator[str]:
    """A page with a form of two buttons; it answers with what was sent."""

    async def page(_: web.Request) -> web.Response:
        text = (
            '<form method="post" action="/buy?x=1"><input type="hidden" name="a" value="&lt;1&gt;">'
            '<input name="b"><button name="choice" value="decline">No</button>'
            '<button name="choice" value="pay">Yes</button><button type="button" value="never">-</button></form>'
            '<form method="post"><button formaction="/later">Later</button></form>'
        )
        return web.Response(text=text, content_type="text/html")

    async def sent(request: web.Request) -> web.Response:
        form = await request.post()
        return web.Response(text=f"{request.path_qs} {[*form.items()]}")

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_post("/buy", sent)
    app.router.add_post("/later", sent)
    running = TestServer(app)
    await running.start_server()
    yield str(running.make_url("/"))
    await running.close()


async def test_browser_sends_a_form_as_browsers_do(shop: str) -> None:
    browser = Browser()
    try:
        page = await browser.open(shop)
        paid = await browser.press(page, "pay")
        assert paid.text == "/buy?x=1 [('a', '<1>'), ('b', ''), ('choice', 'pay')]"
        assert (await browser.press(page, "later")).text == "/later []"
        with pytest.raises(StepFailed, match="has no button 'never'"):
            await browser.press(page, "never")
    finally:
        await browser.close()
