"""The checker: which acknowledged writes a volume lacks after recovery, and what stands there that must not.

Each block is a register with one writer, so no search is needed: the last acknowledged write of a block decides, and only a write
behind it whose fate the client never learned may stand in its place. On one connection writes reach the log in the order in which
they were sent, so what survives of a connection is a beginning of it: a write that is missing before one that is there is a hole,
which no loss of a tail explains.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .drill_recording import ACKED, INDETERMINATE, History

BLANK = -1  # As workload/payload_kernel.py answers for a block that was never written; what lies below it is damage.
NUMBERS_MAX = 8  # Of the writes that are named.


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the checker makes of one volume."""

    acked: int
    lost: int  # acknowledged writes that are not there, those that later ones have overwritten since included
    recovered: int  # not acknowledged, and there
    damaged: int  # blocks that hold no write that was sent to them
    resurrected: int  # of the lost: an older write stands there although what came later has survived
    out_of_order: int  # writes missing from a block that is empty, although what came later has survived
    oldest_lost: int | None  # the number of a write
    newest_lost: int | None
    numbers: list[int]  # of lost and misplaced writes, the first few
    damaged_blocks: list[int]

    @property
    def is_clean(self) -> bool:
        """Whether every acknowledged write is there and nothing is where it must not be."""
        return not (self.lost or self.is_corrupt)

    @property
    def is_corrupt(self) -> bool:
        """Whether something is wrong that no protocol permits."""
        return bool(self.damaged or self.resurrected or self.out_of_order)


def check(history: History, found: Sequence[int]) -> Verdict:
    """The verdict on a volume: `found` is the number of the write in each block, or what stood there instead."""
    writes: dict[int, list[int]] = {}  # by block: what was sent to it, in that order
    for number, (block, outcome) in enumerate(zip(history.block, history.outcome, strict=True)):
        if outcome in (ACKED, INDETERMINATE):
            writes.setdefault(block, []).append(number)
    damaged = [
        block for block, held in enumerate(found) if held < BLANK or (held >= 0 and held not in writes.get(block, ()))
    ]
    bad = set(damaged)
    reached: dict[int, int] = {}  # by connection: the last of its writes that is there
    for block, held in enumerate(found):
        if held >= 0 and block not in bad:
            connection = history.connection[held]
            reached[connection] = max(reached.get(connection, -1), held)

    lost: set[int] = set()
    resurrected: set[int] = set()
    out_of_order: set[int] = set()
    for block, numbers in writes.items():
        if block in bad:
            continue
        held = found[block]
        for number in numbers:
            if number <= held:
                continue
            is_acked = history.outcome[number] == ACKED
            if is_acked:
                lost.add(number)
            if number < reached.get(history.connection[number], -1):
                (resurrected if is_acked and held >= 0 else out_of_order).add(number)
    lost |= overwritten(history, lost - resurrected - out_of_order)
    recovered = sum(held >= 0 and history.outcome[held] == INDETERMINATE for block, held in enumerate(found) if block not in bad)
    return Verdict(
        acked=history.outcome.count(ACKED), lost=len(lost), recovered=recovered, damaged=len(damaged),
        resurrected=len(resurrected), out_of_order=len(out_of_order), oldest_lost=min(lost, default=None),
        newest_lost=max(lost, default=None), numbers=sorted(lost | resurrected | out_of_order)[:NUMBERS_MAX],
        damaged_blocks=damaged[:NUMBERS_MAX],
    )  # fmt: skip


def overwritten(history: History, tails: set[int]) -> set[int]:
    """Acknowledged writes behind the first that a connection's tail lost: lost as well, though overwritten since."""
    first: dict[int, int] = {}
    for number in tails:
        connection = history.connection[number]
        first[connection] = min(first.get(connection, number), number)
    return {
        number for number, (connection, outcome) in enumerate(zip(history.connection, history.outcome, strict=True))
        if outcome == ACKED and number >= first.get(connection, len(history.outcome))
    }  # fmt: skip
