"""Why rounds were void or failed, in a few words: single reasons differ in their numbers and mean the same.

The live progress and every report count by the cause that a reason's code stands for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..base import reasons
from ..base.reasons import Reason, cause_of
from ..base.units import counted
from ..recording import causes_of

if TYPE_CHECKING:
    from ..recording import Recording
    from .result import CellResult


def commonest(rounds: Iterable[Sequence[Reason]]) -> str:
    """The cause that most rounds have, each counted once for a cause however often it names it; empty for no round."""
    counts = Counter(cause for each in rounds for cause in dict.fromkeys(map(cause_of, each)))
    return counts.most_common(1)[0][0] if counts else ""


def rounds_text(recording: Recording, cells: Sequence[CellResult]) -> str:
    """How many rounds were void or failed and why: "8 of 108 rounds void (the link was off) and left out"."""
    counts = {
        "good": sum(item.rounds_ok for item in cells),
        "void": sum(item.rounds_void for item in cells),
        "failed": sum(item.rounds_failed for item in cells),
    }
    total = sum(counts.values())
    if not counts["void"] and not counts["failed"]:
        return f"{counted(total, 'round')}, all good" if total else "no round was measured"
    bad = [causes_of(item) for item in recording.rounds if item.status != "ok"] or [item.void_reasons for item in cells]
    what = ", ".join(f"{counts[name]} of {total} rounds {name}" for name in ("void", "failed") if counts[name])
    missing = sum(not item.rounds_ok for item in cells)
    rest = f"; no good round for {missing} of {len(cells)} cells" if missing else " and left out"
    cause = commonest(bad)
    most = "most often " if len({cause_of(reason) for each in bad for reason in each}) > 1 else ""
    return what + (f" ({most}{cause})" if cause else "") + rest


def in_words(reason: Reason) -> str:
    """Why an estimate is unknown: a cell without a good round gives causes instead of each round's numbers."""
    if reason.code != reasons.no_good_round.name or not reason.numbers:
        return reason.sentence
    return f"not one good round: {reason.numbers['causes']}"
