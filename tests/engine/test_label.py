"""A volume's label: journal and volume of two times are refused, and whatever instant the power goes out at, they still open.

The crash part lives in a pretend world, where the power may go out between any two operations on the disk and any sectors of
what was under way may be missing; the mixtures are made of real files.
"""

import dataclasses
import os

import numpy as np
import pytest

from console import farwrite
from farwrite.base.errors import EXIT_LOST_WRITE, UnfitError
from farwrite.base.host import pretend_kernel as pretend
from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.engine import journal as journals
from farwrite.engine import journal_kernel as log
from farwrite.engine import label as labels
from farwrite.engine import primary_kernel as primary
from farwrite.engine import record_kernel as record
from farwrite.engine import replica_kernel as replica
from farwrite.engine import secondary_kernel as secondary
from farwrite.engine import turn_kernel
from farwrite.engine.handshake import hello_of, lead
from farwrite.engine.inspect import look
from farwrite.engine.journal import begin_anew, examine, format_journal, replay, tie
from farwrite.engine.node import recall

VOLUME, EXTENT, SEED = 7, 4096, 5
CAPACITY, STAGING, VOLUME_BYTES = 32 << 10, 16 << 10, 32 << 10
FILE_BYTES = VOLUME_BYTES + replica.LABEL_BYTES
SHARES = (0, 64, 128, 192, 256)  # of 256 sectors of what was under way that are on the disk
TURNS = 80


# The power goes out between any two operations of the disk.


def world():
    stream, segments = rows_of(pretend.Stream, 2), np.zeros((2, pretend.SEGMENTS), np.int64)
    made = pretend.world(
        np.ones(1, np.int64), log.SUPERBLOCK_BYTES + CAPACITY, FILE_BYTES, FILE_BYTES, stream, np.zeros((2, 64), np.uint8),
        segments, segments.copy(),
    )  # fmt: skip
    made.at[0].flush_ns = 100_000
    return made


def journal_in(around):
    return log.journal_state(CAPACITY, STAGING, VOLUME, 1, 0, 0, VOLUME_BYTES, EXTENT, 1024, 1_000_000)


def why_apart(around):
    """What an opening says of what stands on this disk, and (superblock, what a scan has found)."""
    whole = journals.whole_superblocks(around.journal)
    found = journals.find_end(around.journal, whole[0])
    why = labels.mismatch(whole[0], len(whole), found, VOLUME_BYTES, around.volume[VOLUME_BYTES:])
    return why, whole[0], found


def opened(around, power_in=-1):
    """The journal of a replica that comes back, or None when the power went out meanwhile."""
    why, superblock, found = why_apart(around)
    assert not why
    around.at[0].power_in = power_in
    ring, journal = reactor.pretended(around), journal_in(around)
    try:
        if journals.apply_found(around.journal, superblock, ring, 0, 0, found) < 0:
            return None
        journals.resume(journal, ring, superblock, found)
        lead(journal, int(superblock.epoch) + 1)
        tie(journal, ring)
    except UnfitError:
        return None
    return journal


def written_until_dark(around, journal, power_in, turns, ring=None):
    """A load until the power goes out after so many operations of the disk, or for so many turns; operations that were done."""
    random = np.random.default_rng(1)
    ring = ring or reactor.pretended(around)
    state = primary.primary_state(journal, ring, [], primary.LOCAL, SEED, 10**12, volume_bytes=VOLUME_BYTES, lag_ring=1024)
    around.at[0].power_in = power_in
    before = int(around.at[0].operations)
    number = int(journal.at[0].staged_sequence)
    for _ in range(turns):
        around.clock[0] += 60_000
        size = int(random.choice([512, 1024, 4096]))
        number += primary.submit(state, number, 512 * int(random.integers(0, (VOLUME_BYTES - size) // 512)), size, 0) > 0
        turn_kernel.progress(state, 0)
        if around.at[0].power_in == 0:
            break
    return int(around.at[0].operations) - before


def crashed(around, key):
    pretend.crash(around, key, SHARES[key % len(SHARES)], 1)


def born(around):
    """A new pair of files, as a round makes them: the label comes with the first checkpoint."""
    journal = journal_in(around)
    journal.at[0].pair = 4711
    assert replica.save(journal, reactor.pretended(around)) == replica.OK
    return journal


def test_whenever_the_power_goes_out_journal_and_volume_still_open():
    """At any operation of a load, of an opening behind that, and of the next load, whatever sectors are missing."""
    around = world()
    operations = written_until_dark(around, born(around), -1, TURNS)
    assert labels.labels_in(around.cached[VOLUME_BYTES:])[0].generation > 4
    reopenings = 0
    for dark in range(1, operations):
        around = world()
        written_until_dark(around, born(around), dark, TURNS)
        crashed(around, dark)
        for again in range(2):
            if opened(around, 1 + (3 * dark + again) % 23) is None:
                crashed(around, dark + again)
                reopenings += 1
        written_until_dark(around, opened(around), 1 + dark % 40, TURNS // 2)
        crashed(around, dark + 1)
        assert opened(around) is not None
    assert reopenings > operations // 2


def work_on(around, journal, ring):
    """A turn without a peer, long after the one before."""
    around.clock[0] += 10**9
    reactor.wait(ring, np.full(1, -1, np.int64), 0, 0)
    replica.settle_turn(journal, ring)
    replica.checkpoint(journal, ring)


def synced(kind, sequence, address, word, length, ordinal):
    """A frame of a resync, whole."""
    data = np.ones(int(record.record_bytes(length)), np.uint8)
    record.seal(data, data.view(record.Header.LAYOUT), 0, kind, length, sequence, address, 1, VOLUME, 5, word, ordinal)
    return data


@pytest.mark.parametrize("found", ["newer extents", "another history", "no difference"])
def test_whenever_the_power_goes_out_in_a_resync_journal_and_volume_still_open(found):
    """Another history: the log begins anew behind an earlier write than ours. No difference: without a mark that it is mixed."""
    ended = 0
    for dark in range(1, 40):
        around = world()
        journal = born(around)
        ring = reactor.pretended(around)
        written_until_dark(around, journal, -1, 40, ring)
        for _ in range(40):
            work_on(around, journal, ring)
        state = secondary.secondary_state(journal, ring, 0, primary.C, VOLUME_BYTES, rows_of(SharedCounters), 16 << 10)
        durable = int(journal.at[0].durable_sequence)
        redo = durable - 5 if found == "another history" else durable + 5
        kinds = [(record.DIGEST, 64)] * (found != "newer extents") + [(record.EXTENT, EXTENT)] * (found != "no difference")
        frames = [synced(kind, redo + 1, 0, 0, length, number) for number, (kind, length) in enumerate(kinds, 1)]
        frames.append(synced(record.SYNCED, redo, redo + 2, 1, 0, len(frames) + 1))
        around.at[0].power_in = dark
        for frame in frames:
            state.inbox[: frame.size] = frame
            if secondary.accept(state, 0) != secondary.TAKEN:
                assert around.at[0].power_in == 0
                break
        else:
            ended += 1
            assert journal.at[0].staged_sequence == redo
        crashed(around, dark)
        journal = opened(around)
        assert journal is not None and journal.at[0].durable_sequence in (durable, redo)
    assert 20 < ended < 39


# Files of two times.


def write_all(files, journal, count, size=4096):
    """So many writes, applied and settled; answers what both files hold now."""
    with reactor.reactor("plain") as ring:
        state = primary.primary_state(journal, ring, [], primary.LOCAL, SEED, 10**12, volume_bytes=VOLUME_BYTES)
        for _ in range(count):
            number = int(journal.at[0].staged_sequence)
            while not primary.submit(state, number, size * (number % 8), size, 0):
                assert turn_kernel.progress(state, 0) == replica.OK
            assert turn_kernel.progress(state, 0) == replica.OK
        assert replica.settle(journal, ring) == replica.OK
    return copied(files)


def copied(files):
    return tuple(os.pread(fd, os.fstat(fd).st_size, 0) for fd in (files.journal_fd, files.volume_fd))


def put_back(files, journal, volume):
    for fd, data in ((files.journal_fd, journal), (files.volume_fd, volume)):
        os.ftruncate(fd, len(data))
        assert os.pwrite(fd, data, 0) == len(data)


@pytest.fixture
def files():
    with disk(None, log.SUPERBLOCK_BYTES + CAPACITY, VOLUME_BYTES) as made:
        yield made


@pytest.fixture
def states(files):
    """Copies of both files: after the first writes, several checkpoints later, and after being opened twice more."""
    journal = begin_anew(files, VOLUME, STAGING)
    kept = [write_all(files, journal, 3), write_all(files, journal, 30), write_all(files, journal, 30)]
    for _ in range(2):
        journal, _ = replay(files, STAGING)
    kept.append(copied(files))
    return kept


def test_files_of_one_time_open_and_files_of_two_times_are_refused_with_what_to_do(files, states):
    for old, (journal, _) in enumerate(states):
        for new, (_, volume) in enumerate(states):
            put_back(files, journal, volume)
            if old == new:
                replay(files, STAGING)
                continue
            older = "the journal is older than its volume" if old < new else "the volume is older than its journal"
            for attempt in (lambda: replay(files, STAGING), lambda: recall(files, VOLUME, STAGING)):
                with pytest.raises(UnfitError, match=f"{older}.*Put both files back from one backup.*an empty journal"):
                    attempt()
            assert copied(files) == (journal, volume)  # Nothing was changed.


def test_a_journal_that_ends_before_its_volume_is_refused_even_in_the_same_generation(files):
    """A checkpoint under way has labelled the volume; then the journal of a little earlier is put back."""
    journal = begin_anew(files, VOLUME, STAGING)
    early, _ = write_all(files, journal, 1, 512)
    write_all(files, journal, 1, 512)
    assert journal.at[0].checkpoint_count == 0
    assert replica.write_label(journal, reactor.empty(), journal.at[0].applied_sequence) == replica.OK
    late, volume = copied(files)
    put_back(files, early, volume)
    with pytest.raises(UnfitError, match="it ends at write 1, and the volume holds everything up to write 2"):
        replay(files, STAGING)
    put_back(files, late, volume)
    assert replay(files, STAGING)[1].sequence == 2


def test_a_damaged_superblock_costs_a_generation_and_no_more(files, states):
    journal, volume = states[2]
    newest = int(journals.read_superblock(np.frombuffer(journal, np.uint8))[2])
    damaged = bytearray(journal)
    damaged[newest % 2 * log.BLOCK_BYTES + 20] ^= 1
    put_back(files, bytes(damaged), volume)
    assert replay(files, STAGING)[1].sequence == 63


def test_a_volume_of_another_replica_or_without_its_label_is_refused(files, states):
    journal, volume = states[1]
    with disk(None, log.SUPERBLOCK_BYTES + CAPACITY, VOLUME_BYTES) as others:
        _, foreign = write_all(others, begin_anew(others, VOLUME, STAGING), 30)
    for other, sentence in (
        (foreign, "the volume belongs to another journal"),
        (volume[:VOLUME_BYTES], "label is missing"),
        (volume[:VOLUME_BYTES] + b"?" * replica.LABEL_BYTES, "label is damaged"),
        (volume[: VOLUME_BYTES // 2], "label is missing"),
    ):
        put_back(files, journal, other)
        with pytest.raises(UnfitError, match=sentence):
            replay(files, STAGING)
    put_back(files, journal, volume)
    with pytest.raises(UnfitError, match="belongs to a volume of 32 KiB, and this one has 36 KiB"):
        replay(dataclasses.replace(files, volume_bytes=VOLUME_BYTES + 4096), STAGING)


def without_pair(data):
    """A journal as it was written before there were pairs."""
    made = bytearray(data)
    for block in (0, log.BLOCK_BYTES):
        superblock = log.superblock_in(np.frombuffer(made, np.uint8)[block:])[0]
        superblock.pair = superblock.pair_generation = superblock.volume_bytes = superblock.pair_crc = 0
    return bytes(made)


def test_files_from_before_there_were_labels_open_once_and_get_one(files, states):
    journal, volume = states[1]
    old = without_pair(journal)
    put_back(files, old, volume[:VOLUME_BYTES])
    opened_journal, found = replay(files, STAGING)
    assert found.sequence == 33 and opened_journal.at[0].pair and opened_journal.at[0].pair_generation == 1
    assert os.pread(files.volume_fd, VOLUME_BYTES, 0) == volume[:VOLUME_BYTES]
    tied, labelled = copied(files)
    put_back(files, old, labelled)  # The power went out before the superblocks told of it.
    assert replay(files, STAGING)[1].sequence == 33
    put_back(files, tied, labelled)
    _, later = write_all(files, replay(files, STAGING)[0], 30)
    put_back(files, old, later)
    with pytest.raises(UnfitError, match="this one has never been"):
        replay(files, STAGING)


def test_an_empty_journal_beside_a_used_volume_makes_it_inconsistent_and_beside_a_new_one_does_not(files, states):
    _, volume = states[1]
    empty = bytes(log.SUPERBLOCK_BYTES + CAPACITY)
    for there, is_whole in ((volume, False), (bytes(VOLUME_BYTES), True)):
        put_back(files, empty, there)
        for _ in range(2):  # And stays so until a primary has compared it.
            assert hello_of(recall(files, VOLUME, STAGING), primary.C).consistent == is_whole


def test_a_round_takes_whatever_volume_it_is_given(files, states):
    """It begins with a journal of its own and writes over what it finds."""
    put_back(files, *states[1])
    journal = format_journal(files, VOLUME + 1, 1, STAGING)
    assert examine(files, apply=True)[1].sequence == 0
    write_all(files, journal, 30)
    assert replay(files, STAGING)[1].sequence == 30
    put_back(files, states[1][0], copied(files)[1])
    with pytest.raises(UnfitError, match="the volume belongs to another journal"):
        replay(files, STAGING)


def test_volume_info_says_that_they_are_not_of_one_time(tmp_path, states):
    for name, data in zip(("journal", "volume"), (states[1][0], states[2][1]), strict=True):
        (tmp_path / name).write_bytes(data)
    done = farwrite("volume", "info", tmp_path)
    assert done.returncode == EXIT_LOST_WRITE and "not of one time" in done.stdout and "one backup" in done.stdout
    (tmp_path / "volume").write_bytes(states[1][1])
    found = look(tmp_path)
    assert (found.mismatch, found.volume_bytes, found.consistent) == ("", VOLUME_BYTES, True)


# A record that no replay can apply.


@pytest.mark.parametrize(
    ("kind", "address", "word"), [(record.TRIM, 4096, 0), (record.TRIM, -1, 5), (record.WRITE, VOLUME_BYTES, 0)]
)
def test_a_record_that_no_replay_can_apply_is_named_with_what_to_do_and_not_applied(files, caplog, kind, address, word):
    """As an earlier version could make it durable: planted behind two writes."""
    journal = begin_anew(files, VOLUME, STAGING)
    write_all(files, journal, 2, 512)
    length = 100 if kind == record.WRITE else 0
    start = log.place(journal, length)
    record.seal(journal.data, journal.headers, start, kind, length, 3, address, 1, VOLUME, 0, word)
    place = log.SUPERBLOCK_BYTES + int(journal.at[0].sealed)
    log.seal_batch(journal)
    begin, end = place - log.SUPERBLOCK_BYTES, int(journal.at[0].sealed)
    assert os.pwrite(files.journal_fd, journal.data[begin:end].tobytes(), place) == end - begin
    before = os.pread(files.volume_fd, VOLUME_BYTES, 0)
    opened_journal = recall(files, VOLUME, STAGING)
    what = f"write 3, a {'trim' if kind == record.TRIM else 'write'} of {length or word} bytes at {address}, at byte {place}"
    assert what in caplog.text and "compared extent by extent" in caplog.text and "one backup" in caplog.text
    assert opened_journal.at[0].durable_sequence == 2 and not hello_of(opened_journal, primary.C).consistent
    assert os.pread(files.volume_fd, VOLUME_BYTES, 0) == before
