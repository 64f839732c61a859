"""What a crash leaves in the journal, and what replay makes of it: the longest whole beginning, and never anything else.

The oracle of a damaged journal is the undamaged one: replay must stop before the first record of which a guarded byte
has changed. A crash of the disk's cache is told in memory: at any turn of the engine, any sectors of the batch that was
being written may be new or old, and of the volume only what the last sync covered is sure.
"""

import contextlib
import dataclasses
import os
import threading

import numpy as np
import pytest

from farwrite.base.errors import UnfitError
from farwrite.base.host import libc, reactor
from farwrite.base.host.disk import disk
from farwrite.engine import journal as journals
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import record_kernel as record
from farwrite.engine import replica_kernel as replica
from farwrite.engine import turn_kernel
from farwrite.engine.handshake import hello_of, how_to_join
from farwrite.engine.journal import END_REASONS, NOT_NEXT, examine, format_journal, replay, save
from farwrite.engine.node import recall
from farwrite.targets import replicated
from oracle import payload_oracle, record_oracle
from oracle.record_oracle import rounded
from rounds import (
    IDENTITIES,
    JOURNAL_BYTES,
    VOLUME_BYTES,
    completed_in,
    everything_compiled,  # noqa: F401
    issued_in,
    load,
    order,
    play,
    reactors,
)

FRONT = log.SUPERBLOCK_BYTES
SMALL_STAGING = 64 << 10
SMALL_VOLUME = 256 << 10
SMALL_JOURNAL = log.SUPERBLOCK_BYTES + (512 << 10)
SEED = 9


@pytest.fixture(scope="module")
def disks():
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as near, disk(None, JOURNAL_BYTES, VOLUME_BYTES) as far:
        yield near, far


@contextlib.contextmanager
def two_disks(directory):
    with disk(directory, JOURNAL_BYTES, VOLUME_BYTES) as near, disk(directory, JOURNAL_BYTES, VOLUME_BYTES) as far:
        yield near, far


def whole(descriptor):
    """Everything in a file, as bytes that may be changed without changing the file."""
    return np.frombuffer(bytearray(os.pread(descriptor, os.fstat(descriptor).st_size, 0)), np.uint8)


def restore(descriptor, data):
    assert os.pwrite(descriptor, memoryview(data), 0) == data.size


def data_of(files):
    """What a volume holds, without the label behind it."""
    return np.frombuffer(bytearray(os.pread(files.volume_fd, files.volume_bytes, 0)), np.uint8)


def records_in(image):
    """(file offset, guarded bytes, kind, sequence) of each record of an undamaged journal, from its tail to its end."""
    superblock = journals.read_superblock(image)
    capacity, position = int(superblock.capacity_bytes), int(superblock.tail)
    found = survey(image)
    listed = []
    while position < found.position:
        offset = FRONT + position % capacity
        kind, length, sequence, _, _ = record_oracle.fields(image[offset : offset + 64].tobytes())
        listed.append((offset, 64 if kind == record.PAD else 64 + length, kind, sequence))
        position += rounded(length)
    return listed


def survey(image):
    """What scan finds in an image: position, sequence, writes, reason, epoch, whether it was damaged."""
    superblock = journals.read_superblock(image)
    return journals.find_end(image, superblock)


def surviving(intact, damaged, records, first):
    """The last sequence before the first record that is not what it was: what replay must find."""
    last = first
    for offset, guarded, kind, sequence in records:
        if not np.array_equal(intact[offset : offset + guarded], damaged[offset : offset + guarded]):
            break
        last = sequence if kind == record.WRITE else last
    return last


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize("protocol", ["A", "B", "C"])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_finished_round_replays_to_all_of_it_on_both_sides(tmp_path, kind, protocol, where):
    chosen = order(protocol=protocol, reactor=kind, volume=next(IDENTITIES))
    with two_disks(tmp_path if where == "disk" else None) as (near, far):
        observed, answered = play(chosen, near, far)
        assert observed.status == 0
        assert answered.status == 0
        assert completed_in(observed) == 300
        assert replicated.audit_side(chosen, far, 300).damaged == 0
        for side in (near, far):
            journal, found = replay(side, replicated.STAGING_BYTES)
            assert found.sequence == 300
            assert journal.at[0].epoch == chosen.epoch + 1
        assert data_of(near).tobytes() == data_of(far).tobytes()


@pytest.mark.parametrize("kind", reactors())
def test_a_ring_that_wraps_many_times_keeps_everything(disks, kind):
    """About 80 MiB through a ring of 16 MiB, with checkpoints under way."""
    near, far = disks
    chosen = order(
        volume=next(IDENTITIES), reactor=kind, write_count_max=5000, queue_depth=64,
        load=load(((4096, 1.0), (32768, 1.0), (512, 0.3)), queue_depth=64),
    )  # fmt: skip
    observed, _ = play(chosen, near, far)
    assert completed_in(observed) == 5000
    assert observed.flush_bytes > 4 * (16 << 20)
    found = replicated.audit_side(chosen, far, 5000)
    assert (found.survived, found.lost, found.damaged) == (5000, 0, 0)
    assert replicated.audit_side(chosen, near, 5000).damaged == 0
    _, recalled = replay(far, replicated.STAGING_BYTES)
    assert recalled.record_count < 5000  # The rest was behind a checkpoint.


@pytest.fixture(scope="module")
def clean(disks):
    """The far journal of a clean round, and where its records stand."""
    chosen = order(volume=next(IDENTITIES), write_count_max=120)
    play(chosen, *disks)
    image = whole(disks[1].journal_fd)
    records = records_in(image)
    assert sum(kind == record.WRITE for _, _, kind, _ in records) == 120
    assert any(kind == record.PAD for _, _, kind, _ in records)
    return image, records


def live_end(records):
    offset, guarded, _, _ = records[-1]
    return offset + guarded


@pytest.mark.parametrize("rest", ["zeros", "ones", "garbage", "its own bytes turned round"])
@pytest.mark.parametrize("grain", [1, 64, 512, 4096])
def test_a_torn_journal_is_whole_up_to_the_tear_and_not_a_record_further(clean, rest, grain):
    image, records = clean
    random = np.random.default_rng(grain)
    end = live_end(records)
    cuts = np.unique(random.integers(FRONT, end, 60) // grain * grain)
    damaged = image.copy()
    for cut in cuts[cuts >= FRONT]:
        tail = damaged[cut : end + 8192]
        tail[:] = {
            "zeros": 0,
            "ones": 255,
            "garbage": random.integers(0, 256, tail.size, np.uint8),
            "its own bytes turned round": tail[::-1].copy(),
        }[rest]
        assert survey(damaged)[1] == surviving(image, damaged, records, 0), f"cut at {cut}"
        tail[:] = image[cut : end + 8192]


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_anywhere_ends_the_replay_there(clean, seed):
    image, records = clean
    random = np.random.default_rng(seed)
    damaged = image.copy()
    for _ in range(150):
        offset, guarded, _, _ = records[int(random.integers(len(records)))]
        inside = int(random.integers(0, 64 if random.random() < 0.5 else guarded))
        bit = np.uint8(1 << int(random.integers(8)))
        damaged[offset + inside] ^= bit
        found = survey(damaged)
        assert found.sequence == surviving(image, damaged, records, 0)
        assert found.position <= offset - FRONT
        damaged[offset + inside] ^= bit
    assert survey(damaged)[1] == 120


@pytest.mark.parametrize("seed", range(4))
def test_a_missing_sector_in_the_middle_ends_the_replay_there_and_nothing_behind_it_counts(clean, seed):
    image, records = clean
    random = np.random.default_rng(seed)
    damaged = image.copy()
    for _ in range(30):
        sector = int(random.integers(FRONT, live_end(records))) // 512 * 512
        damaged[sector : sector + 512] = 0
        assert survey(damaged)[1] == surviving(image, damaged, records, 0)
        damaged[sector : sector + 512] = image[sector : sector + 512]


def test_a_record_that_was_moved_is_not_believed(clean):
    """A misdirected journal write: whole, of this volume, in the wrong place."""
    image, records = clean
    blocks = [at for at, entry in enumerate(records[:-1]) if entry[2] == record.WRITE and entry[0] % 4096 == 0]
    one, other = blocks[3], blocks[-1]
    damaged = image.copy()
    offset, guarded, _, _ = records[other]
    damaged[records[one][0] : records[one][0] + guarded] = image[offset : offset + guarded]
    found = survey(damaged)
    assert found.sequence == records[one][3] - 1
    assert found.reason == NOT_NEXT


@pytest.mark.parametrize("torn", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_a_torn_superblock_leaves_the_other(clean, disks, torn, seed):
    image, _ = clean
    random = np.random.default_rng(seed)
    damaged = image.copy()
    damaged[torn * 4096 + int(random.integers(0, 72))] ^= np.uint8(1 << int(random.integers(8)))
    newest = journals.read_superblock(image)[2]
    assert journals.read_superblock(damaged)[2] == newest - (torn == newest % 2)
    assert survey(damaged)[1] == 120


# Damage is told from the end of the log.


def written_log(chosen, count, size=4096):
    """A log of so many writes, each flushed alone, many laps long; answers (image, the primary's journal)."""
    journal = format_journal(chosen, next(IDENTITIES), 1, SMALL_STAGING)
    with reactor.reactor("plain") as ring:
        state = primary.primary_state(journal, ring, [], primary.LOCAL, SEED, 1 << 40, volume_bytes=SMALL_VOLUME)
        for number in range(count):
            while not primary.submit(state, number, number * size % SMALL_VOLUME, size, 0):
                assert turn_kernel.progress(state, 0) == 0
            while state.at[0].completed <= number:
                assert turn_kernel.progress(state, 0) == 0
    return whole(chosen.journal_fd).copy(), journal


@pytest.fixture(scope="module")
def long_log():
    with disk(None, SMALL_JOURNAL, SMALL_VOLUME) as chosen:
        yield written_log(chosen, 700)


def test_a_sound_log_is_not_called_damaged(long_log):
    image, journal = long_log
    assert journal.at[0].checkpoint_count > 4
    assert survey(image)[1] == 700
    assert survey(image)[5] == 0


@pytest.mark.parametrize("slot", [0, 1])
def test_a_flipped_bit_in_either_superblock_loses_nothing(long_log, slot):
    image, _ = long_log
    damaged = image.copy()
    for byte in range(log.Superblock.LAYOUT.itemsize):
        damaged[slot * 4096 + byte] ^= 1 << (byte % 8)
        assert survey(damaged)[1] == 700, byte
        damaged[slot * 4096 + byte] ^= 1 << (byte % 8)


def test_damage_is_known_where_something_durable_stands_behind_it(long_log):
    image, journal = long_log
    damaged, records = image.copy(), records_in(image)
    known = int(journals.read_superblock(image)[10])
    for offset, _, kind, sequence in records:
        if kind == record.WRITE:
            damaged[offset + 70] ^= 1
            found = survey(damaged)
            assert found.sequence == sequence - 1
            more_than_a_batch_behind = records[-1][0] > FRONT + found.position % journal.at[0].capacity_bytes + SMALL_STAGING
            if sequence <= known or more_than_a_batch_behind:
                assert found.damaged == 1, sequence
            if sequence == 700:
                assert found.damaged == 0  # It could as well be a batch that was torn, and was never acknowledged.
            damaged[offset + 70] ^= 1


def test_a_replica_with_a_damaged_log_is_marked_inconsistent_and_compared(long_log):
    image, _ = long_log
    known = int(journals.read_superblock(image)[10])
    offset = next(entry[0] for entry in records_in(image) if entry[3] == known and entry[2] == record.WRITE)
    damaged = image.copy()
    damaged[offset + 70] ^= 1
    with disk(None, SMALL_JOURNAL, SMALL_VOLUME) as chosen:
        os.pwrite(chosen.journal_fd, damaged.tobytes(), 0)
        os.pwrite(chosen.volume_fd, whole(long_log[1].at[0].volume_fd), 0)
        journal, found = replay(chosen, SMALL_STAGING)
        assert found.damaged
        assert journal.at[0].flags & log.INCONSISTENT
        hello = hello_of(journal, primary.C)
        assert not hello.consistent
        assert how_to_join(long_log[1], dataclasses.replace(hello, epoch=1, log_epoch=1)) == primary.BY_DIGESTS


def test_without_a_superblock_there_is_no_journal(clean, disks):
    image, _ = clean
    far = disks[1]
    kept = os.pread(far.journal_fd, 8192, 0)
    os.pwrite(far.journal_fd, bytes([kept[0] ^ 1]), 0)
    os.pwrite(far.journal_fd, bytes([kept[4096 + 70] ^ 1]), 4096 + 70)
    for attempt in (lambda: examine(far), lambda: replay(far, replicated.STAGING_BYTES)):
        with pytest.raises(UnfitError, match="no whole superblock"):
            attempt()
    os.pwrite(far.journal_fd, kept, 0)
    assert examine(far)[1].sequence == int(survey(image).sequence)


def test_a_journal_that_cannot_be_read_is_never_taken_for_a_new_one(disks):
    """A replica that comes back begins a journal only where nothing was ever written."""
    far = disks[1]
    identity = next(IDENTITIES)
    save(format_journal(far, identity, 3, replicated.STAGING_BYTES))
    kept = os.pread(far.journal_fd, 8192, 0)
    for block in (0, 4096):
        os.pwrite(far.journal_fd, (1).to_bytes(8, "little"), block + 8)
    for attempt in (lambda: examine(far), lambda: recall(far, identity, replicated.STAGING_BYTES)):
        with pytest.raises(UnfitError, match="a journal of version 1; this farwrite reads up to version 3"):
            attempt()
    os.pwrite(far.journal_fd, kept[:70] + b"?" + kept[71 : 4096 + 70] + b"?" + kept[4096 + 71 :], 0)
    with pytest.raises(UnfitError, match="no whole superblock"):
        recall(far, identity, replicated.STAGING_BYTES)
    os.pwrite(far.journal_fd, bytes(8192), 0)
    assert recall(far, identity, replicated.STAGING_BYTES).at[0].epoch == 0


def test_a_journal_of_another_size_is_refused(clean, disks):
    small = dataclasses.replace(disks[1], journal_bytes=1 << 20)
    with pytest.raises(UnfitError, match="another size"):
        examine(small)


def test_an_empty_journal_replays_to_nothing(disks):
    far = disks[1]
    format_journal(far, next(IDENTITIES), 1, replicated.STAGING_BYTES)
    journal, found = replay(far, replicated.STAGING_BYTES)
    assert (found.sequence, found.record_count, found.end_position) == (0, 0, 0)
    assert journal.at[0].staged == 0


def test_replaying_again_gives_the_same(disks):
    near, far = disks
    chosen = order(volume=next(IDENTITIES))
    play(chosen, near, far)
    _, first = replay(far, replicated.STAGING_BYTES)
    volume = data_of(far)
    for epoch in (3, 4):
        journal, again = replay(far, replicated.STAGING_BYTES)
        assert again.sequence == first.sequence == 300
        assert again.record_count == 0
        assert journal.at[0].epoch == epoch
        assert (data_of(far) == volume).all()


def test_what_an_earlier_run_left_is_not_of_this_volume(disks):
    near, far = disks
    first, second = (order(volume=next(IDENTITIES), write_count_max=count) for count in (300, 40))
    play(first, near, far)
    format_journal(far, next(IDENTITIES), 1, replicated.STAGING_BYTES)
    assert examine(far)[1].sequence == 0  # Whole records of the earlier run stand right there.
    play(second, near, far)
    assert examine(far)[1].sequence == 40  # The same writes, sizes and sequences; another identity.


# The same engine with small rings, so that a crash can be tried at every turn.


class Crash:
    """A local primary on a small journal, and what its disk may hold if power fails now."""

    def __init__(self, files, volume=1, journal=None, laps=2):
        self.files = dataclasses.replace(files, journal_bytes=FRONT + laps * SMALL_STAGING, volume_bytes=SMALL_VOLUME)
        self.journal = journal or format_journal(self.files, volume, 1, SMALL_STAGING)
        self.ring = reactor.empty()
        self.primary = primary.primary_state(self.journal, self.ring, [], primary.LOCAL, SEED, 10**12)
        self.first = self.submitted = int(self.journal.at[0].staged_sequence)
        self.writes = []  # (address, size) by number, from self.first on
        self.before = self.after = whole(self.files.journal_fd)
        self.sure_volume = self.volume()
        self.acknowledged = self.first

    def volume(self):
        """Data and label, whether there is one already or not."""
        size = SMALL_VOLUME + replica.LABEL_BYTES
        return np.frombuffer(bytearray(os.pread(self.files.volume_fd, size, 0).ljust(size, b"\0")), np.uint8)

    def submit(self, address, size):
        if not primary.submit(self.primary, self.submitted, address, size, 0):
            return False
        self.writes.append((address, size))
        self.submitted += 1
        return True

    def turn(self):
        """One turn of the loop. Before it returns, its flush was on its way: the crash happens there."""
        self.acknowledged = int(self.primary.at[0].completed)
        self.before = whole(self.files.journal_fd)
        assert turn_kernel.progress(self.primary, libc.monotonic_ns()) == replica.OK
        self.after = whole(self.files.journal_fd)
        if self.ring.state[reactor.VOLUME] == reactor.FINISHED:
            self.sure_volume = self.volume()

    def torn_journal(self, random):
        """Any sectors of what this turn wrote may be missing; or all behind one of them."""
        image = self.after.copy()
        changed = np.unique(np.flatnonzero(self.before != self.after) // 512)
        if random.random() < 0.5:
            missing = changed[random.random(changed.size) < random.random()]
        else:
            missing = changed[int(random.integers(0, changed.size + 1)) :]
        for sector in missing.tolist():
            image[sector * 512 : sector * 512 + 512] = self.before[sector * 512 : sector * 512 + 512]
        return image

    def torn_volume(self, random):
        """Each sector as the last sync left it, or as it is now."""
        image, now = self.sure_volume.copy(), self.volume()
        for sector in np.unique(np.flatnonzero(image != now) // 512).tolist():
            if random.random() < 0.5:
                image[sector * 512 : sector * 512 + 512] = now[sector * 512 : sector * 512 + 512]
        return image

    def payload(self, number):
        address, size = self.writes[number - self.first]
        key = (number, address, size)
        if key not in PAYLOADS:
            PAYLOADS[key] = np.frombuffer(payload_oracle.payload(size, SEED, number, address), np.uint8)
        return PAYLOADS[key]

    def image_after(self, base, count):
        """The volume after the first `count` writes of this story."""
        image = base.copy()
        for number in range(self.first, self.first + count):
            address, size = self.writes[number - self.first]
            image[address : address + size] = self.payload(number)
        return image


PAYLOADS = {}


@pytest.fixture(scope="module")
def small():
    """Files of two crash stories: one that runs, one in which a crash is looked at."""
    with disk(None, FRONT + 4 * SMALL_STAGING, SMALL_VOLUME) as running, \
            disk(None, FRONT + 4 * SMALL_STAGING, SMALL_VOLUME) as crashed:  # fmt: skip
        yield running, crashed


@pytest.mark.parametrize("seed", range(3))
def test_power_lost_at_any_turn_leaves_a_prefix_with_all_that_was_acknowledged(small, seed):
    """The ring wraps several times, checkpoints are under way, sectors of the last batch and of the volume are missing."""
    random = np.random.default_rng(seed)
    running, crashed = small
    story = Crash(running, volume=next(IDENTITIES), laps=int(random.choice([1, 2, 4])))
    base = data_of(story.files)
    looked = dataclasses.replace(crashed, journal_bytes=story.files.journal_bytes, volume_bytes=SMALL_VOLUME)
    survived = []
    for turn in range(90):
        for _ in range(int(random.integers(0, 5))):
            size = int(random.choice([512, 1024, 4096, 9728]))
            story.submit(int(random.integers(0, (SMALL_VOLUME - size) // 512 + 1)) * 512, size)
        story.turn()
        if turn % 3 == 0:
            restore(looked.journal_fd, story.torn_journal(random))
            restore(looked.volume_fd, story.torn_volume(random))
            _, found = replay(looked, SMALL_STAGING)
            assert story.acknowledged <= found.sequence <= story.submitted
            expected = story.image_after(base, found.sequence)
            assert (data_of(looked) == expected).all(), f"turn {turn}: not the prefix of {found.sequence}"
            survived.append(found.sequence - story.acknowledged)
    assert story.journal.at[0].staged > 2 * SMALL_STAGING
    assert max(survived) > 0


def sure(story, count, size=4096):
    """Write `count` blocks, each flushed by itself, so each begins on a block boundary."""
    for number in range(count):
        assert story.submit(number % 8 * size, size)
        for _ in range(3):
            story.turn()
    assert story.journal.at[0].durable_sequence == story.submitted


def test_new_records_go_on_in_a_new_epoch_and_old_ones_behind_them_stay_dead(small):
    """The classic: a torn record is written anew, and behind it stands an old one that has exactly the next number.

    A replay writes zeros over such leftovers, so the test puts them back: the epoch alone must do as well.
    """
    running, _ = small
    story = Crash(running, volume=next(IDENTITIES), laps=4)
    sure(story, 9, 4032)  # Less than a third of the ring: no checkpoint yet. Whole blocks: no PAD vouches for any.
    image = whole(story.files.journal_fd)
    records = [entry for entry in records_in(image) if entry[2] == record.WRITE]
    os.pwrite(story.files.journal_fd, bytes(512), records[6][0] + 1024)  # Write 7 is torn, 8 and 9 are whole.

    journal, found = replay(story.files, SMALL_STAGING)
    assert found.sequence == 6
    assert found.end_reason == END_REASONS[record.BAD_CRC]
    assert journal.at[0].staged == records[6][0] - FRONT
    buried = whole(story.files.journal_fd)
    assert not buried[records[6][0] : records[8][0] + record.HEADER_BYTES].any()
    assert (buried[: records[6][0]] == image[: records[6][0]])[FRONT:].all()
    os.pwrite(story.files.journal_fd, image[records[7][0] :].tobytes(), records[7][0])

    resumed = Crash(running, journal=journal, laps=4)
    sure(resumed, 1, 4032)
    image = whole(story.files.journal_fd)
    assert record_oracle.fields(image[records[6][0] : records[6][0] + 64].tobytes())[4] == 2
    offset, guarded, _, _ = records[7]
    headers = image.view(record.Header.LAYOUT)
    assert record.inspect(image, headers, offset, guarded, int(journal.at[0].volume)) == record.COMPLETE
    assert record.sequence_of(headers, offset) == 8  # Planted: whole, next in number, and of the old epoch.
    assert record.epoch_of(headers, offset) == 1
    assert survey(image)[1] == 7
    assert survey(image)[3] == NOT_NEXT

    journal, found = replay(story.files, SMALL_STAGING)
    assert (found.sequence, found.record_count) == (7, 1)
    assert found.end_reason == END_REASONS[NOT_NEXT]
    again = Crash(running, journal=journal, laps=4)
    sure(again, 3, 4032)
    assert replay(story.files, SMALL_STAGING)[1].sequence == 10


def torn_behind_two(running):
    """A batch of four writes in one block, of which the third is torn: its files, and the volume's identity."""
    identity = next(IDENTITIES)
    story = Crash(running, volume=identity, laps=2)
    for number in range(4):
        assert story.submit(512 * number, 512)
    for _ in range(3):
        story.turn()
    third = [begin for begin, _, kind, _ in records_in(whole(story.files.journal_fd)) if kind == record.WRITE][2]
    os.pwrite(story.files.journal_fd, bytes(64), third)
    return story.files, identity


def test_the_leftovers_of_a_torn_batch_are_no_damage_however_often_they_are_looked_at(small, monkeypatch):
    """They end in the very block behind which the log goes on, where the next replay would find them a lap ahead."""
    for buried in (True, False):
        files, identity = torn_behind_two(small[0])
        if not buried:
            monkeypatch.setattr(journals, "zero_torn_tail", lambda *_: 0)
        flags = [int(recall(files, identity, SMALL_STAGING).at[0].flags) for _ in range(2)]
        assert flags == [0, 0 if buried else log.INCONSISTENT]
        assert examine(files)[1].sequence == 2


def test_what_another_log_left_a_lap_before_this_one_was_begun_is_no_damage(small):
    """After a resync the log may go on behind an earlier write than those that still stand in the ring."""
    story = Crash(small[0], volume=next(IDENTITIES), laps=4)
    sure(story, 40)
    at = story.journal.at[0]
    log.restart(story.journal, -(-int(at.staged) // 4096) * 4096, 5, 1)
    save(story.journal)
    assert examine(story.files)[1][["sequence", "damaged"]].tolist() == (5, 0)
    at.begun = -at.capacity_bytes
    save(story.journal)
    assert examine(story.files)[1][["sequence", "damaged"]].tolist() == (5, 1)


@pytest.mark.parametrize(("seed", "hasty"), [(0, False), (1, False), (2, False), (3, True)])
def test_whatever_bit_of_the_log_flips_the_volume_is_not_ahead_of_it_or_the_damage_is_known(small, seed, hasty):
    """Only what a PAD or a superblock vouches for gets into the volume: so what is not missed there may be lost unseen.

    A planted fault, `hasty`, applies whatever is durable: that is noticed.
    """
    random = np.random.default_rng(seed)
    story = Crash(small[0], volume=next(IDENTITIES), laps=4)
    known = ends = ahead = 0
    for turn in range(120):
        for _ in range(int(random.integers(0, 4))):
            size = int(random.choice([512, 1024, 4096, 9728]))
            story.submit(int(random.integers(0, (SMALL_VOLUME - size) // 512 + 1)) * 512, size)
        story.turn()
        if hasty:
            story.journal.at[0].durable_watermark = story.journal.at[0].durable
        if turn % 3:
            continue
        image = whole(story.files.journal_fd)
        applied, records = int(story.journal.at[0].applied_sequence), records_in(image)
        for index in random.integers(0, max(len(records), 1), min(len(records), 6)).tolist() + [-1] * bool(records):
            offset, guarded, _, _ = records[index]
            damaged = image.copy()
            damaged[offset + int(random.integers(0, guarded))] ^= np.uint8(1 << int(random.integers(8)))
            found = survey(damaged)
            ahead += not found.damaged and found.sequence < applied
            known, ends = known + int(found.damaged != 0), ends + int(found.damaged == 0)
    assert (ahead > 0) == hasty
    assert known > 20 and ends > 20
    assert story.journal.at[0].staged > 4 * SMALL_STAGING


@pytest.mark.parametrize("seed", range(2))
def test_crash_after_crash_the_log_goes_on_and_stays_a_prefix(small, seed):
    random = np.random.default_rng(seed)
    running, _ = small
    story = Crash(running, volume=next(IDENTITIES), laps=int(random.choice([1, 2, 4])))
    content = data_of(running)
    epoch = 1
    for _ in range(12):
        for _ in range(int(random.integers(1, 25))):
            for _ in range(int(random.integers(0, 4))):
                size = int(random.choice([512, 4096, 6144]))
                story.submit(int(random.integers(0, (SMALL_VOLUME - size) // 512 + 1)) * 512, size)
            story.turn()
        restore(running.journal_fd, story.torn_journal(random))
        restore(running.volume_fd, story.torn_volume(random))
        journal, found = replay(story.files, SMALL_STAGING)
        epoch += 1
        assert journal.at[0].epoch == epoch
        assert story.acknowledged <= found.sequence <= story.submitted
        content = story.image_after(content, found.sequence - story.first)
        assert (data_of(running) == content).all()
        story = Crash(running, journal=journal, laps=story.journal.at[0].capacity_bytes // SMALL_STAGING)


@pytest.mark.parametrize("seed", range(3))
def test_records_of_an_earlier_lap_are_never_resurrected(small, seed):
    """After many laps the whole ring is full of whole records of this very volume and epoch."""
    random = np.random.default_rng(seed)
    running, _ = small
    story = Crash(running, volume=next(IDENTITIES))
    for _ in range(200):
        story.submit(int(random.integers(0, 60)) * 4096, 4096 - 64)
        story.turn()
    assert story.journal.at[0].staged > 4 * 2 * SMALL_STAGING
    image = whole(story.files.journal_fd)
    records = records_in(image)
    first = int(journals.read_superblock(image)[5])
    assert survey(image)[1] == story.submitted
    ring = np.arange(FRONT, FRONT + 2 * SMALL_STAGING, 64)
    stale = [
        int(at) for at in ring
        if image[at : at + 4].tobytes() == b"FRW1" and int(at) not in [offset for offset, _, _, _ in records]
    ]  # fmt: skip
    assert stale  # They do stand there,
    for offset in stale:  # and none of them has a number that could come next.
        _, _, sequence, _, _ = record_oracle.fields(image[offset : offset + 64].tobytes())
        assert sequence <= first
    for cut, _, _, _ in records:
        for source in stale[:6]:
            damaged = image.copy()
            damaged[cut : cut + 4096] = image[source : source + 4096]
            assert survey(damaged)[1] == surviving(image, damaged, records, first)


def test_an_acknowledged_write_is_in_the_journal_before_anybody_is_told(disks):
    """Both sides of every protocol: the count that was completed never exceeds what the near journal holds."""
    near, far = disks
    for protocol in ("A", "B", "C"):
        chosen = order(protocol=protocol, volume=next(IDENTITIES), queue_depth=32)
        observed, _ = play(chosen, near, far)
        assert examine(near)[1].sequence >= completed_in(observed) == issued_in(observed)


@pytest.mark.parametrize("begin", [FRONT, FRONT + 40_960, SMALL_JOURNAL - 512])
def test_a_journal_is_read_ahead_from_its_tail_on_and_around(monkeypatch, begin):
    monkeypatch.setattr(journals, "AHEAD_BYTES", 65_536)
    chunks = journals.around(begin, SMALL_JOURNAL)
    assert chunks[0] == begin
    read = {byte for offset in chunks for byte in range(offset, offset + 65_536, 512)}
    assert read.issuperset(range(FRONT, SMALL_JOURNAL, 512))


def test_reading_ahead_ends_with_who_it_was_for(monkeypatch, disks):
    near, _ = disks
    chunks = journals.around(FRONT, near.journal_bytes)
    asked, begun, waited_for = [], threading.Event(), threading.Event()
    join = threading.Thread.join

    def advise(descriptor, offset, size, advice):
        asked.append((descriptor, offset, size, advice))
        begun.set()
        waited_for.wait(10)

    def join_told(thread):
        waited_for.set()
        join(thread)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(threading.Thread, "join", join_told)
    with journals.read_ahead(near.journal_fd, FRONT):
        assert begun.wait(10)
    assert asked == [(near.journal_fd, FRONT, journals.AHEAD_BYTES, os.POSIX_FADV_WILLNEED)]
    assert len(chunks) > 1
