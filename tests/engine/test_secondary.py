"""The secondary's decisions about frames, against the oracle that takes a stream of bytes apart.

accept_record and parse make no system call and run both ways; the loop around them is tested in tests/lab.
"""

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.base.host import reactor
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import record_kernel as record
from farwrite.engine import replica_kernel as replica
from farwrite.engine import secondary_kernel as secondary
from oracle import record_oracle, secondary_oracle

VOLUME, EPOCH, VOLUME_BYTES = 7, 5, 1 << 20


def state(staging=1 << 20):
    journal = log.journal_state(staging, staging, VOLUME, EPOCH, -1, -1, VOLUME_BYTES)
    return secondary.secondary_state(journal, reactor.empty(), -1, primary.C, VOLUME_BYTES, rows_of(SharedCounters))


def hand_over(made, data):
    fill = int(made.at[0].inbox_fill)
    made.inbox[fill : fill + len(data)] = np.frombuffer(data, np.uint8)
    made.at[0].inbox_fill = fill + len(data)


def frame(sequence, address=0, payload=b"p" * 100, epoch=EPOCH, volume=VOLUME):
    return record_oracle.write(payload, sequence, address, epoch, volume)


def staged(made):
    """The WRITE records in memory, in order, as bytes."""
    position, found = 0, []
    while position < made.journal.at[0].staged:
        start = position % int(made.journal.at[0].staging_bytes)
        size = record_oracle.rounded(int(record.length_of(made.journal.headers, start)))
        if record.kind_of(made.journal.headers, start) == record.WRITE:
            found.append(made.journal.data[start : start + size].tobytes())
        position += size
    return found


@pytest.mark.parametrize("accept_record", both_ways(secondary.accept_record))
def test_the_next_record_is_taken_byte_for_byte(accept_record):
    made = state()
    for sequence, size in enumerate((1, 2, 63, 64, 65, 4096), 1):
        sent = frame(sequence, 4096 * sequence, b"q" * size)
        made.inbox[64 : 64 + len(sent)] = np.frombuffer(sent, np.uint8)
        assert accept_record(made, 64) == secondary.TAKEN
        assert staged(made)[-1] == sent
    assert made.journal.at[0].staged_sequence == 6


@pytest.mark.parametrize("accept_record", both_ways(secondary.accept_record))
@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (frame(1, epoch=EPOCH - 1), secondary.OLD_EPOCH),
        (frame(1, epoch=EPOCH + 1), secondary.OLD_EPOCH),
        (frame(0), secondary.NOT_NEXT),
        (frame(2), secondary.NOT_NEXT),
        (frame(-(2**63)), secondary.NOT_NEXT),
        (frame(1, -1), secondary.OUTSIDE),
        (frame(1, -(2**63)), secondary.OUTSIDE),
        (frame(1, 2**63 - 1), secondary.OUTSIDE),
        (frame(1, VOLUME_BYTES - 99), secondary.OUTSIDE),
        (frame(1, 0, b""), secondary.OUTSIDE),
    ],
)
def test_a_record_that_is_not_the_next_of_this_volume_is_refused_and_changes_nothing(accept_record, sent, answer):
    made = state()
    before = made.journal.at.copy()
    hand_over(made, sent)
    assert accept_record(made, 0) == answer
    assert (made.journal.at == before).all()
    assert not made.journal.data.any()


@pytest.mark.parametrize("accept_record", both_ways(secondary.accept_record))
def test_the_last_byte_of_the_volume_may_be_written(accept_record):
    made = state()
    hand_over(made, frame(1, VOLUME_BYTES - 100))
    assert accept_record(made, 0) == secondary.TAKEN


@pytest.mark.parametrize("accept_record", both_ways(secondary.accept_record))
def test_a_record_without_room_is_left_for_later(accept_record):
    made = state(16384)
    for sequence in (1, 2, 3):
        hand_over(made, frame(sequence, 0, bytes(6000)))
    size = record_oracle.rounded(6000)
    assert [accept_record(made, place * size) for place in range(3)] == [secondary.TAKEN, secondary.TAKEN, secondary.NO_ROOM]
    assert made.journal.at[0].staged_sequence == 2


def stream_of(random):
    """Frames in order, then perhaps something that is not, then more."""
    last, asides, data = 0, 0, b""
    for _ in range(int(random.integers(0, 8))):
        if random.random() < 0.2:
            asides += 1
            data += record_oracle.header("ping", sequence=last, epoch=EPOCH, volume=VOLUME, ordinal=asides)
        else:
            last += 1
            data += frame(last, int(random.integers(0, 100)) * 512, random.bytes(int(random.integers(1, 150))))
    bad = random.choice(
        ["none", "replay", "skip", "epoch", "volume", "outside", "pad", "ack", "hello", "noise", "flip", "early", "again"]
    )
    if bad == "replay":
        data += frame(max(last, 1))
    elif bad == "skip":
        data += frame(last + 2)
    elif bad == "epoch":
        data += frame(last + 1, epoch=EPOCH - 1)
    elif bad == "volume":
        data += frame(last + 1, volume=VOLUME + 1)
    elif bad == "outside":
        data += frame(last + 1, VOLUME_BYTES)
    elif bad in ("pad", "ack", "hello"):
        data += record_oracle.header(bad, sequence=last, epoch=EPOCH, volume=VOLUME, ordinal=asides + 1)
    elif bad == "early":  # It tells of a write that is missing.
        data += record_oracle.header("ping", sequence=last + 1, epoch=EPOCH, volume=VOLUME, ordinal=asides + 1)
    elif bad == "again":
        data += record_oracle.header("ping", sequence=last, epoch=EPOCH, volume=VOLUME, ordinal=asides)
    elif bad == "noise":
        data += random.bytes(int(random.integers(1, 200)))
    elif bad == "flip" and data:
        broken = bytearray(data)
        broken[int(random.integers(0, len(broken)))] ^= 1 << int(random.integers(0, 8))
        data = bytes(broken)
    data += frame(last + 1)
    return data[: int(random.integers(0, len(data) + 1))] if random.random() < 0.3 else data


@pytest.mark.parametrize("parse", both_ways(secondary.parse))
@pytest.mark.parametrize("seed", range(100))
def test_a_stream_is_taken_apart_as_the_oracle_does_however_it_is_cut(parse, seed):
    random = np.random.default_rng(seed)
    data = stream_of(random)
    made = state()
    taken, left, ended = secondary_oracle.parse(data, VOLUME, EPOCH, VOLUME_BYTES)
    status, rest = replica.OK, data
    while rest and status == replica.OK:
        size = int(random.choice([1, 10, 64, 100, 1000]))
        hand_over(made, rest[:size])
        rest = rest[size:]
        status = parse(made)
    assert staged(made) == taken
    assert (status == replica.BAD_FRAME) == (ended is not None)
    if ended is None:
        assert made.inbox[: made.at[0].inbox_fill].tobytes() == left
    else:
        assert made.at[0].refused < 0


@pytest.mark.parametrize("parse", both_ways(secondary.parse))
def test_frames_without_room_wait_in_the_inbox_and_are_taken_in_order_later(parse):
    made = state(16384)
    sent = [frame(sequence, 0, bytes([sequence]) * 3000) for sequence in range(1, 9)]
    hand_over(made, b"".join(sent))
    seen = []
    for _ in range(20):
        assert parse(made) == replica.OK
        at = made.journal.at[0]
        while log.seal_batch(made.journal):
            log.note_durable(made.journal)
        position = int(at.applied)
        while position < at.durable:
            start = position % 16384
            size = record_oracle.rounded(int(record.length_of(made.journal.headers, start)))
            if record.kind_of(made.journal.headers, start) == record.WRITE:
                seen.append(made.journal.data[start : start + size].tobytes())
            position += size
        log.note_vouched(made.journal, position)
        log.note_applied(made.journal, position, int(at.durable_sequence))
        at.checkpoint_position, at.checkpoint_sequence = at.applied, at.applied_sequence
        log.free_to_checkpoint(made.journal)
    assert seen == sent
    assert made.at[0].inbox_fill == 0


@pytest.mark.parametrize("accept", both_ways(secondary.accept))
@pytest.mark.parametrize("kind", ["ping", "goodbye", "command", "extent", "synced", "digest"])
@pytest.mark.parametrize("ordinal", [0, 4, 6, 65535])
def test_a_frame_before_which_one_is_missing_is_refused_and_changes_nothing(accept, kind, ordinal):
    made = state()
    made.at[0].aside_heard = 4
    hand_over(made, record_oracle.header(kind, epoch=EPOCH, volume=VOLUME, ordinal=ordinal))
    before = made.journal.at.copy(), made.at.copy()
    assert accept(made, 0) == secondary.NOT_NEXT
    assert (made.journal.at == before[0]).all() and (made.at == before[1]).all()


@pytest.mark.parametrize("parse", both_ways(secondary.parse))
def test_goodbye_closes_and_ping_asks_for_an_ack(parse):
    made = state()
    hand_over(made, record_oracle.header("ping", epoch=EPOCH, volume=VOLUME, ordinal=1))
    assert parse(made) == replica.OK
    assert made.at[0].ack_due == 1
    assert made.at[0].closing == 0
    hand_over(made, record_oracle.header("goodbye", epoch=EPOCH, volume=VOLUME, ordinal=2))
    assert parse(made) == replica.OK
    assert made.at[0].closing == 1
