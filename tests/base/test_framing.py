"""Messages on a stream: whole ones come out whatever the pieces, and no reader waits longer or takes more than it said."""

import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from farwrite.base.framing import Frames, Lines, Reader, TooLongError, frame, line


def framed_by(cutter):
    return line if isinstance(cutter, Lines) else lambda message: frame(message, cutter.order)


@settings(max_examples=60, deadline=None)
@given(
    messages=some.lists(some.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")), max_size=6), data=some.data(),
    cutter=some.sampled_from([lambda: Lines(30), lambda: Frames(30, "big"), lambda: Frames(30, "little")]),
)  # fmt: skip
def test_messages_come_out_as_they_went_in_however_their_bytes_arrive(messages, data, cutter):
    cutting, found = cutter(), []
    stream = b"".join(map(framed_by(cutting), messages))
    cuts = sorted(data.draw(some.lists(some.integers(0, len(stream)), max_size=5)))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        cutting.put(stream[begin:end])
        while (message := cutting.take()) is not None:
            found.append(message)
    assert found == messages and not cutting.waiting


@pytest.mark.parametrize("cutter", [Lines(8), Frames(8, "big"), Frames(8, "little")])
def test_a_message_that_is_longer_than_allowed_is_refused_before_it_is_whole(cutter):
    message = framed_by(cutter)(b"x" * 100)
    with pytest.raises(TooLongError):
        for at in range(len(message) - 1):  # A byte each time: it never gets to the end.
            cutter.put(message[at : at + 1])
            assert cutter.take() is None


@pytest.fixture
def pipe():
    reads, writes = os.pipe()
    with open(reads, "rb", buffering=0) as reader, open(writes, "wb", buffering=0) as writer:  # noqa: PTH123
        yield reader, writer


def test_a_part_of_a_message_is_no_message_and_its_sender_is_not_waited_for_beyond_the_limit(pipe):
    reader, writer = Reader(pipe[0], Frames(100, "big")), pipe[1]
    assert not reader.poll(0)
    writer.write(frame(b"whole", "big") + frame(b"half", "big")[:-1])
    assert reader.poll(0) and reader.poll(0) and reader.take(0) == b"whole" and not reader.poll(0)
    with pytest.raises(TimeoutError):
        reader.take(0.01)
    writer.write(b"f")
    assert reader.take(0) == b"half"
    writer.write(b"\0")
    writer.close()
    assert reader.take(10) is None is reader.take(10)


def test_who_sends_a_byte_now_and_then_meets_the_limit_as_well(pipe):
    reader, writer = Reader(pipe[0], Lines(1 << 20)), pipe[1]
    over = threading.Event()

    def drip():
        while not over.is_set():
            writer.write(b".")
            time.sleep(0.001)

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(TimeoutError):
            reader.take(0.05)
    finally:
        over.set()
        dripping.join()
