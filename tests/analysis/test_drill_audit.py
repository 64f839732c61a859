"""The checker of drills on made-up histories: every planted fault is found, and a healthy history never raises an alarm."""

import random
from collections import Counter

import msgspec
import pytest

from farwrite.analysis.drill_audit import BLANK, check
from farwrite.analysis.drill_recording import ACKED, FAILED, INDETERMINATE, NEVER, History

BLOCKS, WRITES = 16, 200


def replicas_story(dice, loses_tail=False):
    """(history, found, log): a client, two leaderships, and what the second one's volume holds.

    On each connection writes enter the log in order. Those under way at its end are indeterminate, and a beginning of them is in
    the log; with `loses_tail` (protocol A) a few acknowledged ones in front of them are not either.
    """
    rows, log = [], []
    for connection in range(2):
        numbers = range(len(rows), len(rows) + WRITES // 2)
        in_flight = dice.randrange(6) if connection == 0 else 0
        for number in numbers:
            outcome = ACKED if number < numbers.stop - in_flight else INDETERMINATE
            rows.append((dice.randrange(BLOCKS), number, number, number + 5, connection, outcome))
        reached = numbers.stop - in_flight + (dice.randrange(in_flight + 1) if in_flight else 0)
        if loses_tail and connection == 0:
            reached = numbers.stop - in_flight - dice.randrange(1, 6)
        log += range(numbers.start, reached)
        end = len(rows)
        rows += [(dice.randrange(BLOCKS), end + i, NEVER, end + i + 9, NEVER, FAILED) for i in range(dice.randrange(5))]
    return history_of(rows), log


def history_of(rows):
    names = ("block", "intended_ns", "sent_ns", "done_ns", "connection", "outcome")
    return History(**{name: [row[at] for row in rows] for at, name in enumerate(names)})


def rows_of(history):
    return [*zip(*msgspec.structs.astuple(history), strict=True)]


def volume(history, log):
    """What the log leaves in each block."""
    found = [BLANK] * BLOCKS
    for number in log:
        found[history.block[number]] = number
    return found


def last_acked(history, log):
    """The last acknowledged write of each block that the log has, where nothing that is not acknowledged stands over it."""
    held = volume(history, log)
    return [number for number in held if number != BLANK and history.outcome[number] == ACKED]


def test_500_healthy_histories_raise_no_alarm():
    for seed in range(500):
        history, log = replicas_story(random.Random(seed))
        held = volume(history, log)
        verdict = check(history, held)
        assert verdict.is_clean and verdict.acked == history.outcome.count(ACKED), seed
        assert verdict.recovered == sum(history.outcome[number] == INDETERMINATE for number in held if number != BLANK), seed


def test_a_lost_tail_is_lost_and_nothing_else():
    """Protocol A: what the far site had not heard of yet. The second leadership's writes go on over some of it."""
    shown = 0
    for seed in range(100):
        history, log = replicas_story(random.Random(seed), loses_tail=True)
        log = [number for number in log if number < WRITES // 2 + 12]  # Soon after, so that not all of it is overwritten.
        verdict = check(history_of(rows_of(history)[: WRITES // 2 + 12]), held := volume(history, log))
        missing = {number for number in range(WRITES // 2 + 12) if history.outcome[number] == ACKED} - set(log)
        seen = {number for number in missing if held[history.block[number]] < number}
        assert not verdict.is_corrupt, seed
        assert verdict.lost == sum(number >= min(seen) for number in missing) if seen else not verdict.lost, seed
        shown += bool(seen)
    assert shown > 30


def mutants():
    """Faults of a replica, each as (name, what becomes of (history, log, volume), the count that must show it)."""

    def drop_one(history, log, dice):
        victim = dice.choice([number for number in last_acked(history, log) if number < log[-1]])
        return history, volume(history, [number for number in log if number != victim])

    def truncate(history, log, dice):
        return history, volume(history, log[: -dice.randrange(1, 20)])

    def acknowledge_early(history, log, dice):
        """The last of the log are acknowledged, and were never in it."""
        return history, volume(history, log[:-3])

    def damage(history, log, dice):
        held = volume(history, log)
        held[dice.randrange(BLOCKS)] = dice.choice([-2, -3, -5, -6])
        return history, held

    def resurrect(history, log, dice):
        held = volume(history, log)
        versions = Counter(history.block[number] for number in log)
        block = dice.choice([block for block, number in enumerate(held) if versions[block] > 1 and number < log[-1]
                             and number in last_acked(history, log)])  # fmt: skip
        held[block] = [number for number in log if history.block[number] == block][-2]
        return history, held

    def misplace(history, log, dice):
        """A write lands in a block that is not its own."""
        held = volume(history, log)
        held[(history.block[log[-1]] + 1) % BLOCKS] = log[-1]
        return history, held

    def invent(history, log, dice):
        """A write is there that was never handed on."""
        held = volume(history, log)
        rows = [*rows_of(history), (3, 999, NEVER, 1010, NEVER, FAILED)]
        held[3] = len(rows) - 1
        return history_of(rows), held

    def forget_a_hole(history, log, dice):
        """A block stays empty whose only write nobody had an answer to, and later writes of its connection are there."""
        rows = rows_of(history)
        hole = log[-20]
        rows[hole] = (BLOCKS, *rows[hole][1:5], INDETERMINATE)
        made = history_of(rows)
        held = [BLANK] * (BLOCKS + 1)
        for number in log:
            if number != hole:
                held[made.block[number]] = number
        return made, held

    return [
        (drop_one, "lost"), (truncate, "lost"), (acknowledge_early, "lost"), (damage, "damaged"), (resurrect, "resurrected"),
        (misplace, "damaged"), (invent, "damaged"), (forget_a_hole, "out_of_order"),
    ]  # fmt: skip


@pytest.mark.parametrize(("mutant", "shown"), mutants(), ids=lambda one: getattr(one, "__name__", one))
def test_every_planted_fault_is_found(mutant, shown):
    """A checker is believed only after it has found what was planted."""
    for seed in range(50):
        dice = random.Random(seed)
        history, log = replicas_story(dice)
        verdict = check(*mutant(history, log, dice))
        assert not verdict.is_clean and getattr(verdict, shown) >= 1, seed


def test_a_write_of_unknown_fate_may_be_there_or_not_and_may_not_come_back_over_a_later_one():
    rows = [(0, 0, 0, 5, 0, ACKED), (0, 1, 1, 9, 0, INDETERMINATE), (0, 2, 2, 20, 1, ACKED), (1, 3, 3, 21, 1, ACKED)]
    without = history_of(rows[:2])
    assert check(without, [0, BLANK]).is_clean and check(without, [1, BLANK]).is_clean
    assert check(without, [1, BLANK]).recovered == 1
    history = history_of(rows)
    assert check(history, [2, 3]).is_clean
    back = check(history, [1, 3])
    assert back.lost == 1 and back.resurrected == 1 and back.numbers == [2]
