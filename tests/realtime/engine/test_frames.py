"""The frame parser against an encoder that was written without a look at it."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.engine import frames
from realtime.engine.frames import FrameError, FrameParser
from tests.realtime.engine.raw import BINARY, CLOSE, PING, PONG, TEXT, encoded

LIMIT = 100_000


def fed(parser: FrameParser, *pieces: bytes) -> list[tuple[int, bytes]]:
    return [message for piece in pieces for message in parser.feed(piece)]


def fault(*pieces: bytes, limit: int = LIMIT) -> int:
    with pytest.raises(FrameError) as caught:
        fed(FrameParser(limit), *pieces)
    return caught.value.code


messages = st.lists(
    st.tuples(
        st.sampled_from([TEXT, BINARY]),
        st.one_of(st.binary(max_size=200), st.sampled_from([125, 126, 127, 65_535, 65_536, 70_000]).map(bytes)),
        # Where the message is cut into fragments, and which control frame stands between two of them.
        st.lists(st.integers(min_value=0, max_value=200), max_size=3),
        st.sampled_from([None, PING, PONG]),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(messages, st.lists(st.integers(min_value=1, max_value=1_000), max_size=20))
def test_every_stream_comes_out_as_it_was_put_in_however_it_is_cut(sent, cuts) -> None:
    stream, expected = b"", []
    for opcode, payload, places, between in sent:
        edges = sorted({min(place, len(payload)) for place in places})
        parts = [payload[a:b] for a, b in zip([0, *edges], [*edges, len(payload)], strict=True)]
        for number, part in enumerate(parts):
            stream += encoded(opcode if number == 0 else 0, part, fin=number == len(parts) - 1)
            if between is not None and number < len(parts) - 1:
                stream += encoded(between, b"in between")
                expected.append((between, b"in between"))
        expected.append((opcode, payload))
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(stream[at : at + cut])
        at += cut
    assert fed(FrameParser(LIMIT), *pieces, stream[at:]) == expected


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_frame_may_be_split_at_every_byte(size: int) -> None:
    stream = encoded(BINARY, bytes(size))
    heads = {*range(min(len(stream), 20)), len(stream) - 1}
    for cut in heads:
        assert fed(FrameParser(LIMIT), stream[:cut], stream[cut:]) == [(BINARY, bytes(size))]
    if size < 200:
        assert fed(FrameParser(LIMIT), *(bytes([byte]) for byte in stream)) == [(BINARY, bytes(size))]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
def test_what_we_send_is_what_the_rfc_draws(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    assert frames.frame(BINARY, payload[:size]) == encoded(BINARY, payload[:size], masked=False)


@pytest.mark.parametrize(
    ("name", "code", "sent"),
    [
        ("unmasked", 1002, encoded(TEXT, b"x", masked=False)),
        ("first reserved bit", 1002, encoded(TEXT, b"x", reserved=4)),
        ("last reserved bit", 1002, encoded(TEXT, b"x", reserved=1)),
        ("reserved opcode", 1002, encoded(3, b"x")),
        ("reserved control opcode", 1002, encoded(11, b"x")),
        ("fragmented ping", 1002, encoded(PING, b"x", fin=False)),
        ("long ping", 1002, encoded(PING, bytes(126))),
        ("continuation of nothing", 1002, encoded(0, b"x")),
        ("message within a message", 1002, encoded(TEXT, b"x", fin=False) + encoded(TEXT, b"y")),
        ("too big", 1009, encoded(BINARY, bytes(LIMIT + 1))),
        ("too big by its head alone", 1009, b"\x82\xff" + (2**62).to_bytes(8, "big")),
        ("too big for a signed number", 1009, b"\x82\xff" + (2**64 - 1).to_bytes(8, "big")),
        ("too big in sum", 1009, encoded(BINARY, bytes(LIMIT), fin=False) + encoded(0, b"x")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_faults_have_their_codes(name: str, code: int, sent: bytes) -> None:
    assert fault(sent) == code


def test_a_message_of_just_the_limit_is_let_through_and_the_next_one_counts_anew() -> None:
    parser = FrameParser(10)
    half = encoded(TEXT, b"12345", fin=False) + encoded(0, b"67890")
    assert fed(parser, half, half, encoded(TEXT, bytes(10))) == [
        (TEXT, b"1234567890"),
        (TEXT, b"1234567890"),
        (TEXT, bytes(10)),
    ]


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 3000, 4999])
def test_close_codes_are_echoed(code: int) -> None:
    assert frames.close_code(code.to_bytes(2, "big") + "für immer".encode()) == code


@pytest.mark.parametrize("payload", [b"\x03", *(code.to_bytes(2, "big") for code in (0, 999, 1005, 1006, 2999, 5000))])
def test_close_codes_that_must_not_be_sent_are_a_fault(payload: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        frames.close_code(payload)
    assert caught.value.code == 1002


def test_a_goodbye_in_no_known_letters_is_a_fault() -> None:
    with pytest.raises(FrameError) as caught:
        frames.close_code(b"\x03\xe8\xff\xff")
    assert caught.value.code == 1007
    assert frames.close_code(b"") == 1000


def test_our_goodbye_fits_into_a_control_frame() -> None:
    opcode, size, *payload = frames.close_frame(1001, "x" * 500)
    assert (opcode & 0x0F, size, bytes(payload[:2])) == (CLOSE, 125, b"\x03\xe9")


@pytest.mark.parametrize("kind", ["bytes of one frame", "frames in one segment", "fragments of nothing"])
def test_work_grows_with_the_bytes_and_not_with_their_square(kind: str) -> None:
    # Each of these once cost a copy of everything so far for every small piece: minutes where this takes a moment.
    parser = FrameParser(10**8)
    started = time.process_time()
    if kind == "bytes of one frame":
        fed(parser, b"\x82\xff" + (10**7).to_bytes(8, "big") + bytes(4) + bytes(9_000_000))
        fed(parser, *(b"x" for _ in range(20_000)))
    elif kind == "frames in one segment":
        assert len(fed(parser, encoded(BINARY) * 200_000)) == 200_000
    else:
        fed(parser, encoded(BINARY, fin=False), encoded(0, fin=False) * 200_000)
        assert len(parser._message or b"") == 0
    assert time.process_time() - started < 5
