"""How long before an intended instant to stop sleeping and look at the clock instead: as long as this machine oversleeps.

The near site measures it before each round, in the thread that will wait. A machine with one processor gets the least there
is: whoever spins there keeps the target from working.
"""

from __future__ import annotations

import os

import numpy as np

from ..base.host.libc import monotonic_ns, sleep_until
from ..base.jit import kernel

SPIN_NS_MIN, SPIN_NS_MAX = 20_000, 100_000  # Below it the clock itself counts; above it spinning would be the load.
SLEEPS = 50
SLEEP_NS = 60_000
QUANTILE = 0.75  # The rest are preemptions, which no spinning outwaits: who spins against neighbours is preempted all the more.


@kernel()
def oversleep(late_ns):
    """Sleep as often as there is room for answers, and note by how much each sleep was too long."""
    for turn in range(late_ns.size):
        until_ns = monotonic_ns() + SLEEP_NS
        sleep_until(until_ns)
        late_ns[turn] = max(monotonic_ns() - until_ns, 0)


def spin_ns() -> int:
    """Nanoseconds to spin before an intended instant, on this machine at this moment."""
    late_ns = np.zeros(SLEEPS, np.int64)
    oversleep(late_ns)
    return bounded(float(np.quantile(late_ns, QUANTILE)), len(os.sched_getaffinity(0)))


def bounded(late_ns: float, processors: int) -> int:
    """What was slept too long, kept within what spinning is good for."""
    if processors < 2:
        return SPIN_NS_MIN
    return round(min(max(late_ns, SPIN_NS_MIN), SPIN_NS_MAX))
