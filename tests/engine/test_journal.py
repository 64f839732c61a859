"""The journal's arithmetic on random stories, against a list of everything staged."""

from types import SimpleNamespace

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.engine import journal_kernel as log
from farwrite.engine import record_kernel as record
from oracle import journal_oracle
from oracle.record_oracle import rounded

STEPS = [
    "has_room", "place", "seal_batch", "note_durable", "note_applied", "skip_pads", "run_end", "free_to_checkpoint",
    "wants_checkpoint", "pad_to_end", "note_vouched", "wants_vouch",
]  # fmt: skip
WAYS = [
    pytest.param(
        SimpleNamespace(**{name: both_ways(getattr(log, name))[way].values[0] for name in STEPS}),
        id=both_ways(log.place)[way].id,
    )
    for way in range(len(both_ways(log.place)))
]

VOLUME, EPOCH = 7, 3


class Story:
    """The kernels and their oracle living through the same random events."""

    def __init__(self, steps, seed):
        self.random = np.random.default_rng(seed)
        self.steps = steps
        self.staging = int(self.random.choice([4, 5, 8, 16])) * log.BLOCK_BYTES
        capacity = self.staging * int(self.random.choice([1, 2, 3]))
        self.journal = log.journal_state(capacity, self.staging, VOLUME, EPOCH, -1, -1)
        self.oracle = journal_oracle.Journal(capacity, self.staging)
        self.flushing = self.is_saving = False
        self.lengths = [0, 1, 63, 64, 65, 512, 1000, 4032, 4096, self.staging // 2 - 64, self.staging // 4]

    def step(self):
        event = self.random.choice(["place"] * 5 + ["seal", "durable", "apply", "checkpoint", "vouch", "look"])
        getattr(self, event)()
        self.check()

    def place(self):
        length = int(self.random.choice(self.lengths))
        room = bool(self.steps.has_room(self.journal, length))
        assert room == self.oracle.has_room(length)
        assert self.steps.pad_to_end(self.journal) == self.oracle.rest_of_ring()
        if not room:
            return
        before = self.journal.data.copy()
        begin = self.oracle.staged
        start = self.steps.place(self.journal, length)
        assert start == self.oracle.place(length)
        self.seal_record(start, length)
        changed = np.flatnonzero(before != self.journal.data)
        in_use = {position % self.staging // 64 for position in range(self.oracle.applied, begin, 64)}
        assert in_use.isdisjoint((changed // 64).tolist())

    def seal_record(self, start, length):
        begin, _, _ = self.oracle.records[-1]
        assert begin % self.staging == start
        self.journal.data[start + 64 : start + rounded(length)] = self.random.integers(0, 256)
        sequence = int(self.journal.at[0].staged_sequence)
        record.seal(
            self.journal.data, self.journal.headers, start, record.WRITE, length, sequence, 0, EPOCH, VOLUME, 0
        )  # fmt: skip

    def seal(self):
        if not self.flushing:
            size = self.steps.seal_batch(self.journal)
            assert size == self.oracle.seal_batch()
            assert size % log.BLOCK_BYTES == 0
            self.flushing = size > 0

    def durable(self):
        if self.flushing:
            self.steps.note_durable(self.journal)
            if self.oracle.padded:
                self.oracle.vouched = self.oracle.durable
            self.oracle.durable = self.oracle.sealed
            self.flushing = self.is_saving = False

    def apply(self):
        known = self.oracle.boundaries()
        choices = [position for position in known if self.oracle.applied <= position <= self.oracle.vouched]
        chosen = int(self.random.choice(choices))
        self.steps.note_applied(self.journal, chosen, self.oracle.writes_before(chosen))
        self.oracle.applied = chosen

    def checkpoint(self):
        oracle = self.oracle
        due = oracle.staged - oracle.saved > oracle.capacity // 3 and oracle.applied > oracle.saved
        narrow = 4 * (oracle.staged - oracle.tail) > 3 * oracle.capacity and oracle.applied > oracle.tail
        assert bool(self.steps.wants_checkpoint(self.journal)) == (due or narrow)
        at = self.journal.at[0]
        if self.is_saving:
            self.steps.free_to_checkpoint(self.journal)
            oracle.tail, oracle.saved, self.is_saving = oracle.saved, oracle.checkpoint, False
        elif due or narrow:
            at.checkpoint_position, at.checkpoint_sequence = at.applied, at.applied_sequence
            oracle.checkpoint, self.is_saving = oracle.applied, True

    def vouch(self):
        """By a superblock, when somebody waits for it and no batch under way will do, or after a while."""
        at, behind = self.journal.at[0], self.oracle.vouched < self.oracle.durable
        assert not self.steps.wants_vouch(self.journal, False, at.flushed_ns + at.vouch_after_ns)
        assert bool(self.steps.wants_vouch(self.journal, True, at.flushed_ns + at.vouch_after_ns + 1)) == behind
        at.wants_vouch = 1
        assert bool(self.steps.wants_vouch(self.journal, False, at.flushed_ns)) == behind
        assert not self.steps.wants_vouch(self.journal, True, at.flushed_ns)
        self.steps.note_vouched(self.journal, at.durable)
        self.oracle.vouched = self.oracle.durable
        assert at.wants_vouch == 0

    def look(self):
        """From a boundary that is still in memory, as a sender goes."""
        oracle = self.oracle
        known = [position for position in oracle.boundaries() if position >= oracle.applied]
        position, limit = sorted(int(self.random.choice(known)) for _ in range(2))
        assert self.steps.skip_pads(self.journal, position, limit) == oracle.skip_pads(position, limit)
        assert self.steps.run_end(self.journal, position, limit, np.int64(1) << 62) == oracle.run_end(position, limit)

    def check(self):
        at, oracle = self.journal.at[0], self.oracle
        mine = [oracle.tail, oracle.applied, oracle.durable, oracle.sealed, oracle.staged]
        assert [at.tail, at.applied, at.durable, at.sealed, at.staged] == mine == sorted(mine)
        sequences = [at.tail_sequence, at.applied_sequence, at.durable_sequence, at.sealed_sequence, at.staged_sequence]
        assert sequences == [oracle.writes_before(position) for position in mine]
        assert oracle.applied <= at.vouched == oracle.vouched <= oracle.durable
        assert oracle.staged - oracle.applied <= self.staging
        assert oracle.staged - oracle.tail <= oracle.capacity


@pytest.mark.parametrize("steps", WAYS)
@pytest.mark.parametrize("seed", range(25))
def test_positions_and_sequences_are_the_oracles_through_any_story(steps, seed):
    story = Story(steps, seed)
    for _ in range(200):
        story.step()
    assert story.oracle.records


@pytest.mark.parametrize("steps", WAYS)
def test_the_stories_do_wrap_pad_and_run_out_of_room(steps):
    wrapped = padded = full = cut = 0
    for seed in range(15):
        story = Story(steps, seed)
        for _ in range(150):
            story.step()
        wrapped += story.oracle.staged > story.oracle.capacity
        padded += any(kind == "pad" for _, _, kind in story.oracle.records)
        full += not story.oracle.has_room(4096)
        cut += any(begin % story.staging == 0 and begin for begin, _, _ in story.oracle.records)
    assert wrapped >= 3
    assert padded == 15
    assert full >= 1
    assert cut >= 3


@pytest.mark.parametrize("steps", WAYS)
@pytest.mark.parametrize("seed", range(10))
def test_what_has_been_staged_and_not_applied_stands_in_memory_unchanged(steps, seed):
    story, looked_at = Story(steps, seed), 0
    for _ in range(150):
        story.step()
        for begin, end, _ in story.oracle.records[-40:]:
            if begin >= story.oracle.applied:
                start = begin % story.staging
                found = record.inspect(story.journal.data, story.journal.headers, start, end - begin, VOLUME)
                assert found == record.COMPLETE
                assert record.sequence_of(story.journal.headers, start) == story.oracle.writes_before(end)
                looked_at += 1
    assert looked_at


@pytest.mark.parametrize("steps", WAYS)
def test_a_batch_stops_at_the_rings_end_and_the_rest_is_the_next_batch(steps):
    journal = log.journal_state(65536, 32768, VOLUME, EPOCH, -1, -1)
    steps.place(journal, 24576 - 64)
    assert steps.seal_batch(journal) == 24576
    steps.note_durable(journal)
    steps.note_vouched(journal, 24576)
    steps.note_applied(journal, 24576, 1)
    steps.place(journal, 4096 - 64)
    assert steps.has_room(journal, 4096)
    assert steps.place(journal, 4096) == 0  # 4160 bytes do not fit in the 4096 that are left: padded, and from the top.
    assert journal.at[0].staged_sequence == 3
    assert steps.seal_batch(journal) == 8192
    assert journal.at[0].sealed == 32768
    assert journal.at[0].sealed_sequence == 2
    steps.note_durable(journal)
    assert steps.seal_batch(journal) == 8192
    assert journal.at[0].sealed_sequence == 3


@pytest.mark.parametrize("steps", WAYS)
def test_a_batch_may_fill_the_ring_to_its_last_byte(steps):
    journal = log.journal_state(16384, 16384, VOLUME, EPOCH, -1, -1)
    steps.place(journal, 8192 - 64)
    steps.place(journal, 8192 - 64)
    assert not steps.has_room(journal, 0)
    assert steps.seal_batch(journal) == 16384
    assert journal.at[0].sealed_sequence == 2
    assert steps.seal_batch(journal) == 0


@pytest.mark.parametrize("steps", WAYS)
def test_placing_without_room_is_a_broken_promise(steps):
    journal = log.journal_state(16384, 16384, VOLUME, EPOCH, -1, -1)
    steps.place(journal, 16384 - 64)
    with pytest.raises(AssertionError):
        steps.place(journal, 64)
