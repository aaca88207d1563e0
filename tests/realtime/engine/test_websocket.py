"""The WebSocket layer on a real connection (RFC 6455): frames, faults, goodbyes; no extension is ever agreed."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from tests.realtime.engine.raw import BINARY, CLOSE, PING, PONG, TEXT, RawSocket, encoded
from tests.realtime.engine.serving import Bare, bare, until

LIMIT = 200_000


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[Bare]:
    async with bare(EngineOptions(max_payload=LIMIT)) as running:
        yield running


@pytest.fixture
async def socket(engine: Bare) -> AsyncIterator[RawSocket]:
    socket = await RawSocket.open(engine.url)
    assert str(await socket.message()).startswith("0{")
    yield socket
    await socket.drop()


async def test_compression_is_never_agreed_to(engine: Bare) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    socket = await RawSocket.open(engine.url, headers=offer)
    assert socket.answer.startswith("HTTP/1.1 101 ")
    assert "extensions" not in socket.answer.lower()
    await socket.drop()


@pytest.mark.parametrize(
    "headers",
    ["Sec-WebSocket-Version: 8\r\n", "Upgrade: h2c\r\n", "Sec-WebSocket-Key: short\r\n", "Sec-WebSocket-Key: é\r\n"],
)
async def test_what_is_no_handshake_is_refused(engine: Bare, headers: str) -> None:
    name = headers.partition(":")[0].encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(engine.url.rsplit(":", 1)[1]))
    lines = [
        b"Host: x",
        b"Connection: keep-alive, Upgrade",
        b"Upgrade: WebSocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    kept = [line for line in lines if not line.startswith(name + b":")]
    request = b"\r\n".join([b"GET /engine.io/?EIO=4&transport=websocket HTTP/1.1", *kept, headers.encode(), b""])
    writer.write(request)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("size", [0, 124, 125, 126, 65_534, 65_535, 65_536, LIMIT - 1])
async def test_messages_of_every_length_come_back(socket: RawSocket, size: int) -> None:
    socket.send("4" + "x" * size)
    socket.send(bytes(size))
    assert await socket.message() == "4" + "x" * size
    assert await socket.message() == bytes(size)


async def test_fragments_are_one_message_and_control_frames_may_stand_between_them(socket: RawSocket) -> None:
    text = "4grüße".encode()
    # The cut goes through the middle of a letter.
    socket.raw(encoded(TEXT, text[:4], fin=False) + encoded(PING, b"now"))
    assert await socket.frame() == (PONG, b"now")
    socket.raw(encoded(0, b"", fin=False) + encoded(PONG, b"unasked") + encoded(0, text[4:]))
    assert await socket.message() == "4grüße"


async def test_every_ping_is_answered_with_its_own_words(socket: RawSocket) -> None:
    socket.raw(encoded(PING) + encoded(PING, bytes(125)))
    assert await socket.frame() == (PONG, b"")
    assert await socket.frame() == (PONG, bytes(125))


async def test_many_frames_in_one_segment_come_back_in_order(socket: RawSocket) -> None:
    socket.raw(b"".join(encoded(TEXT, f"4{number}".encode()) for number in range(1_000)))
    assert [await socket.message() for _ in range(1_000)] == [f"4{number}" for number in range(1_000)]


async def test_frames_may_come_byte_by_byte(socket: RawSocket) -> None:
    for byte in encoded(TEXT, b"4slow") + encoded(BINARY, b"\x00\xff"):
        socket.raw(bytes([byte]))
        await asyncio.sleep(0.001)
    assert await socket.message() == "4slow"
    assert await socket.message() == b"\x00\xff"


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        (1002, encoded(TEXT, b"4x", masked=False)),
        (1002, encoded(TEXT, b"4x", reserved=4)),
        (1002, encoded(5, b"4x")),
        (1002, encoded(0, b"4x")),
        (1002, encoded(TEXT, b"4", fin=False) + encoded(BINARY, b"x")),
        (1002, encoded(PING, bytes(126))),
        (1002, encoded(CLOSE, b"\x03")),
        (1002, encoded(CLOSE, b"\x03\xed")),
        (1007, encoded(CLOSE, b"\x03\xe8\xff")),
        (1007, encoded(TEXT, b"4\xff")),
        (1007, encoded(TEXT, b"4\xc3", fin=False) + encoded(0, b"x")),
        (1009, encoded(BINARY, bytes(LIMIT + 1))),
        (1009, encoded(BINARY, bytes(LIMIT), fin=False) + encoded(0, bytes(1))),
        (1009, b"\x82\xff" + (1 << 40).to_bytes(8, "big")),
    ],
    ids=[
        "unmasked",
        "reserved bit",
        "reserved opcode",
        "continuation of nothing",
        "message in a message",
        "long ping",
        "close of one byte",
        "close with a code for nobody",
        "close in no letters",
        "text in no letters",
        "text cut inside a letter",
        "too big",
        "too big in sum",
        "too big by its head alone",
    ],
)
async def test_a_fault_closes_with_its_code_and_ends_only_this_session(
    engine: Bare, socket: RawSocket, code: int, sent: bytes
) -> None:
    sid = engine.session.sid
    bystander = await RawSocket.open(engine.url)
    await bystander.message()
    # What the client sends behind the fault, more than the server reads at once, does not keep it from the code.
    socket.raw(sent + bytes(2_000_000))
    assert await socket.close_code() == code
    await until(lambda: sid in engine.echo.ended)
    assert engine.echo.ended[sid] is Reason.TRANSPORT_CLOSE
    bystander.send("4still here")
    assert await bystander.message() == "4still here"
    await bystander.drop()


@pytest.mark.parametrize(("sent", "code"), [(b"", 1000), (b"\x03\xe9", 1001), (b"\x0f\xa0bye", 4000)])
async def test_a_goodbye_is_answered_with_its_own_code(engine: Bare, socket: RawSocket, sent: bytes, code: int) -> None:
    sid = engine.session.sid
    socket.send("4last words")
    socket.raw(encoded(CLOSE, sent) + encoded(TEXT, b"4unheard"))
    assert await socket.close_code() == code
    await until(lambda: sid in engine.echo.ended)
    assert sid not in engine.server.sessions
    assert engine.echo.heard[sid] == ["last words"]


async def test_a_client_that_just_goes_is_noticed_at_once(engine: Bare, socket: RawSocket) -> None:
    sid = engine.session.sid
    await socket.drop()
    await until(lambda: sid in engine.echo.ended, 1)
    assert engine.echo.ended[sid] is Reason.TRANSPORT_CLOSE


async def test_a_client_that_never_leaves_after_its_fault_is_put_out(
    engine: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.engine.link._GOODBYE_S", 0.2)
    socket = await RawSocket.open(engine.url)
    await socket.message()
    socket.raw(encoded(5))
    opcode, _ = await socket.frame()
    assert opcode == CLOSE
    with pytest.raises(OSError, match=r"reset|closed|lost|Broken"):
        async with asyncio.timeout(5):
            while True:
                socket.raw(encoded(PING, b"still talking"))
                await socket.writer.drain()
                await asyncio.sleep(0.02)
    await socket.drop()
