"""Frames: what is packed comes out again, and whatever else arrives is refused before it can cost more than a frame's memory."""

import contextlib
import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from lz4 import block

from farwrite.base.wire.frames import END, FRAME_BYTES_MAX, HEADER, PACKED, STORED, DamagedError, codec_of, frame
from oracle import record_oracle

COMPRESSED = ["zstd", "lz4"]
ALL = ["none", *COMPRESSED]


def chunks_of(data, dice):
    """The same bytes in pieces of any size."""
    at = 0
    while at < len(data):
        size = dice.choice([1, 2, 15, 16, 17, 100, 5000, len(data)])
        yield data[at : at + size]
        at += size


def taken(unpacker):
    """All that is whole."""
    pieces = []
    while (piece := unpacker.take()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


def unpacked(unpacker, data, dice):
    """What comes out of bytes that arrive in pieces of any size."""
    out = []
    for chunk in chunks_of(data, dice):
        unpacker.put(chunk)
        out.append(taken(unpacker))
    return b"".join(out)


def parts_of(dice):
    """Some text, some noise, some zeroes, as replicas send them and as they do not."""
    for _ in range(dice.randrange(1, 6)):
        size = dice.choice([1, 63, 64, 4160, FRAME_BYTES_MAX])
        yield dice.choice([bytes(size), dice.randbytes(size), (b"a farther copy " * (size // 15 + 1))[:size]])


@pytest.mark.parametrize("compression", ALL)
@pytest.mark.parametrize("seed", range(30))
def test_what_is_packed_comes_out_again_however_it_is_cut_up(compression, seed):
    dice = random.Random(seed)
    parts = list(parts_of(dice))
    packer, _ = codec_of(compression)
    _, unpacker = codec_of(compression)
    sent = b"".join([*(bytes(packer.pack(memoryview(part))) for part in parts), packer.end()])
    assert unpacked(unpacker, sent, dice) == b"".join(parts)
    assert unpacker.ended == (compression != "none") and not unpacker.ready


@pytest.mark.parametrize("compression", COMPRESSED)
def test_a_stream_that_was_cut_has_not_ended(compression):
    packer, unpacker = codec_of(compression)
    sent = packer.pack(memoryview(b"one write")) + packer.pack(memoryview(b"another")) + packer.end()
    for cut in range(len(sent)):
        _, unpacker = codec_of(compression)
        unpacker.put(sent[:cut])
        assert b"one writeanother".startswith(taken(unpacker)) and not unpacker.ended


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("seed", range(200))
def test_from_a_flipped_bit_on_nothing_is_given_out(compression, seed):
    dice = random.Random(seed)
    parts = [dice.choice([bytes(300), dice.randbytes(80)]) for _ in range(3)]
    packer, unpacker = codec_of(compression)
    frames = [bytes(packer.pack(memoryview(part))) for part in parts]
    hit = dice.randrange(3)
    damaged = bytearray(frames[hit])
    damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
    unpacker.put(b"".join([*frames[:hit], damaged, *frames[hit + 1 :]]))
    given_out = []
    with pytest.raises(DamagedError):
        while True:
            piece = unpacker.take()
            if piece is None:  # A length that claims more than came: it waits, and gives nothing out.
                raise DamagedError("")
            given_out.append(piece)
    assert given_out == parts[:hit]


def claiming(length, body):
    """A whole frame, checksum and all, of somebody who lies about what is in it."""
    return frame(PACKED, length, body)


def without_size(data):
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


BOMBS = [
    ("zstd", claiming(1 << 16, zstandard.compress(bytes(64 << 20)))),
    ("zstd", claiming(FRAME_BYTES_MAX, zstandard.compress(bytes(64 << 20)))),
    ("zstd", claiming(1 << 16, without_size(bytes(64 << 20)))),
    ("zstd", claiming(1 << 16, zstandard.compress(bytes(100)))),
    ("zstd", claiming(200, zstandard.compress(bytes(200)) + b"more")),
    ("lz4", claiming(FRAME_BYTES_MAX, block.compress(bytes(32 << 20), store_size=False)[: FRAME_BYTES_MAX - 1])),
    ("lz4", claiming(1 << 16, block.compress(bytes(1 << 20), store_size=False))),
    ("lz4", claiming(1 << 16, block.compress(bytes(100), store_size=False))),
    *[
        (compression, HEADER.pack(kind, length, size, 0))
        for compression in COMPRESSED
        for kind, length, size in [
            (PACKED, FRAME_BYTES_MAX + 1, 100), (STORED, 1 << 31, 1 << 31), (PACKED, 10, 10), (STORED, 10, 9), (PACKED, 0, 0),
            (STORED, 0, 0), (END, 1, 1), (END, 0, 7), (0, 5, 5), (99, 5, 4), (PACKED, 4, 0xFFFFFFFF),
        ]
    ],
]  # fmt: skip


@pytest.mark.parametrize(("compression", "sent"), BOMBS)
def test_a_bomb_and_a_lie_cost_no_more_memory_than_a_frame(compression, sent):
    _, unpacker = codec_of(compression)
    tracemalloc.start()
    try:
        unpacker.put(sent)
        with pytest.raises(DamagedError):
            unpacker.take()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * FRAME_BYTES_MAX


@pytest.mark.parametrize("compression", COMPRESSED)
def test_many_small_frames_are_unpacked_only_as_they_are_taken(compression):
    packer, unpacker = codec_of(compression)
    small = packer.pack(memoryview(bytes(FRAME_BYTES_MAX)))
    assert len(small) < 2000
    unpacker.put(small * 100)
    assert len(unpacker.take()) == FRAME_BYTES_MAX
    assert unpacker.ready and len(unpacker.waiting) == 99 * len(small)


@pytest.mark.parametrize("compression", COMPRESSED)
@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400), good=st.booleans(), seed=st.integers(0, 1 << 30))
def test_no_bytes_crash_an_unpacker(compression, data, good, seed):
    _, unpacker = codec_of(compression)
    sent = (frame(STORED, 4, b"good") if good else b"") + data
    out = b""
    try:
        out = unpacked(unpacker, sent, random.Random(seed))
    except DamagedError:
        return
    assert out in (b"", b"good") or (good and len(out) < len(data))
    assert len(unpacker.waiting) <= len(sent)


@pytest.mark.parametrize("compression", COMPRESSED)
@settings(max_examples=300, deadline=None)
@given(body=st.binary(min_size=1, max_size=300), length=st.integers(1, FRAME_BYTES_MAX))
def test_no_body_with_a_right_checksum_crashes_a_library_or_becomes_another_length(compression, body, length):
    _, unpacker = codec_of(compression)
    unpacker.put(frame(PACKED, length, body))
    with contextlib.suppress(DamagedError):
        assert len(unpacker.take()) == length > len(body)


@pytest.mark.parametrize("compression", COMPRESSED)
def test_records_that_compress_take_fewer_bytes_and_others_only_a_header_more(compression):
    packer, _ = codec_of(compression)
    rows = b"".join(b"%08d,near,far,2.364 ms\n" % row for row in range(170))
    told = record_oracle.write(rows, 1, 0, 1, 7, 0)
    noise = record_oracle.write(random.Random(1).randbytes(4096), 2, 4096, 1, 7, 0)
    assert len(packer.pack(memoryview(told))) < len(told) / 2
    assert len(noise) < len(packer.pack(memoryview(noise))) <= len(noise) + HEADER.size
