"""What analysis finds out: estimates that know how sure they are, and verdicts with a sentence each.

Plain data, stored in the report beside the recording it was computed from. Times are in nanoseconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..base import reasons
from ..base.reasons import Reason

ANALYSIS_VERSION = 4

LINK_ERROR_SHARE_MAX = 0.05  # of a limit: what the link may be off by, and a verdict still rest on it
ROUNDS_MIN = 3  # Below this no verdict rests on rounds: Student's t of two is 12.7, and two alike look as if nothing varied.
EFFICIENCY_MAX = 1.5  # However wide its interval: a floor that is beaten by so much is none.
LATE_SHARE_MAX = 0.05  # of a latency that no limit is given for: what of it may be the generator's lateness

Verdict = Literal["pass", "fail", "unknown"]


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What results are made of."""


class Estimate(Struct, frozen=True):
    """A number that never travels alone. `value` is None when it is unknown; `warnings` then says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None  # what the interval really achieves, such as 0.954
    count: int = 0  # writes, echoes, rounds or kills behind it
    warnings: list[Reason] = []
    without: list[float | None] = []  # the value with one round left out, by round index
    by_round: list[float | None] = []  # the value of each round alone; empty where that follows from `without`
    late_ns: float = 0.0  # of a time: at most so much of it is the generator's own lateness; nothing in a closed loop


def exactly(value: float, count: int) -> Estimate:
    """A value that was counted: its interval is itself."""
    return Estimate(value=value, low=value, high=value, confidence=1.0, count=count)


class OtherResult(Struct, frozen=True):
    """A further secondary of a cell."""

    miles: float
    asked_rtt_ns: float
    rtt_ns_p50: Estimate


class FiveRounds(Struct, frozen=True):
    """Whether five rounds in a row were steady by SNIA's rule, and which; all null: fewer than five good rounds."""

    quantity: str  # "completed_per_s" or "response_ns_p50"
    reached: bool | None
    first_round: int | None  # of the first steady window, or of the steadiest
    last_round: int | None
    average: float | None
    excursion: float | None  # greatest minus least, over the average
    slope: float | None  # what the fitted line gains from first to last round, over the average


class PartResult(Struct, frozen=True):
    """One operation of one job in one phase of a cell, over all its good rounds."""

    operation: str  # "write", "read", "flush" or "trim"
    job: str
    phase: str
    completed: int
    response_ns_p50: Estimate
    response_ns_p99: Estimate
    response_ns_p999: Estimate
    completed_per_s: Estimate  # over the whole round
    goodput_bytes_per_s: Estimate


class CellResult(Struct, frozen=True):
    """One cell over all its good rounds."""

    cell: str
    name: str
    protocol: str
    miles: float
    queue_depth: int
    arrival: str
    size_bytes: int
    rounds_ok: int
    rounds_void: int
    rounds_failed: int
    void_reasons: list[Reason]
    # proof of link
    asked_rtt_ns: float  # at 0 miles: the lab's own base round trip
    rtt_ns_min: Estimate
    rtt_ns_p50: Estimate
    rtt_ns_p99: Estimate
    # latency
    warmup_ns: int  # left out at the start of each round
    steady: bool | None  # None: too few writes to tell
    response_ns_p50: Estimate
    response_ns_p99: Estimate
    response_ns_p999: Estimate
    service_ns_p50: Estimate
    wait_ns_p99: Estimate
    late_ns_p99: Estimate
    floor_ns: Estimate  # what a bare echo and flush take in this lab, at the median
    floor_text: str  # how it was put together: "RTT echo + far flush, sites alone"
    efficiency: Estimate  # floor over response p50
    # throughput
    completed_per_s: Estimate
    goodput_bytes_per_s: Estimate
    offered_per_s: float | None
    # exact counts
    completed: int
    unacknowledged: int
    lost: int | None  # over all audited rounds, void ones too; None: not audited
    damaged: int | None
    flushes_per_write: Estimate  # ratios of counts: what happened is known exactly, so the interval is the value
    far_flushes_per_write: Estimate
    wire_bytes_per_user_byte: Estimate
    cpu_ns_per_write: Estimate  # processor time of both replicas, user and system
    # protocol A
    lag_ns_p99: Estimate | None
    lag_writes_max: int | None
    lag_bytes_max: int | None
    withheld: list[Reason]  # why no verdict on what was measured may rest on this cell; empty when one may
    warnings: list[Reason] = []  # what a reader must know of the whole cell
    others: list[OtherResult] = []
    quorum: int = 0  # replicas that had to be durable under protocol quorum, the primary among them; 0: the workload has none
    exposed: int = 0  # writes that completed while a peer was left behind
    five_rounds: list[FiveRounds] = []  # where the run asked for SNIA's rule
    effective_count: int | None = None  # effective sample size at the median; null: intervals come from rounds instead
    catch_up_ns_max: float | None = None  # from the end of a load until every peer had been sent everything
    parts: list[PartResult] = []  # where there is more than plain writes of one kind
    host_noise: list[Reason] = []  # why no verdict on a latency may rest on it, though others may

    @property
    def latency_doubts(self) -> list[Reason]:
        """Why no verdict on a latency may rest on this cell, whatever the limit; empty when one may."""
        return [*self.withheld, *self.host_noise]

    @property
    def link_error_ns(self) -> float | None:
        """How far the delivered round trip lies from the one asked for, at the median; None when it was not measured."""
        delivered_ns = self.rtt_ns_p50.value
        return None if delivered_ns is None else abs(delivered_ns - self.asked_rtt_ns)


def lateness_share_of(estimate: Estimate) -> Reason | None:
    """Why nothing is concluded from a time where no limit is given that a verdict could turn at, as in a fit, a comparison, a
    series of runs: too much of it is the generator's lateness. None when it is not."""
    if not estimate.late_ns or not estimate.value or estimate.late_ns <= LATE_SHARE_MAX * estimate.value:
        return None
    return reasons.lateness_share(estimate.late_ns, estimate.value, LATE_SHARE_MAX)


def unknown_because(estimate: Estimate) -> list[Reason]:
    """Why there is no value."""
    return estimate.warnings or [reasons.no_value()]


def beaten_doubt(efficiency: Estimate) -> Reason | None:
    """Why an efficiency is none: the whole interval lies above 1, which nothing that waits for its floor can reach, or the value
    lies so far above it that the interval only says how unsteady that floor was."""
    if efficiency.value is None or efficiency.low is None or (efficiency.low <= 1 and efficiency.value <= EFFICIENCY_MAX):
        return None
    return reasons.floor_beaten()


class Fit(Struct, frozen=True):
    """latency_q = a + k * RTT over the distances of one workload and protocol.

    Where the points do not lie on a line, `is_line` is false, k and a have no value, and their first warning says why.
    """

    name: str
    protocol: str
    queue_depth: int
    quantile: float
    k: Estimate  # serial round trips a write takes
    a_ns: Estimate  # everything that is not distance
    rtt_ns_low: float  # the range it was fitted over
    rtt_ns_high: float
    residual_ns_max: float
    left_out: list[str] = []  # cells that no verdict may rest on; k and a carry a warning where all were kept
    is_line: bool = True


# Where the greatest distance lies at which a budget holds.
#   measured  between two measured distances: `miles` has a value
#   beyond    the budget still holds at the farthest measured distance, `beyond_miles`
#   below     it is exceeded at the nearest measured distance already, `below_miles`
#   any       the latency does not depend on distance, and keeps the budget
#   none      the latency does not depend on distance, and exceeds it
#   unknown   cannot be told: `miles` has the reason
Outcome = Literal["measured", "beyond", "below", "any", "none", "unknown"]


class GreatestMiles(Struct, frozen=True):
    """The greatest distance at which a budget holds, interpolated between the distances that were measured."""

    name: str
    protocol: str
    quantile: float
    budget_ns: float
    route_factor: float
    miles: Estimate  # a value only where `outcome` is "measured"; never more than light allows
    outcome: Outcome
    beyond_miles: float | None = None  # the farthest measured distance, where the value or the interval's end lies beyond it
    below_miles: float | None = None  # the nearest one, where the value or the interval's end lies below it


class ReachResult(Struct, frozen=True):
    """The answer of a search for the greatest distance at which one budget holds."""

    name: str
    protocol: str
    quantile: float
    budget_ns: float
    miles: list[GreatestMiles]  # for each route factor; none where too little was measured
    nothing_ns: Estimate | None  # the latency at 0 miles, where that alone exhausts the budget
    unknown: list[Reason]  # why the answer is unknown; empty when it is known


class DrillResult(Struct, frozen=True):
    """All drills of one kind and protocol that count, together. The others are in the fields that begin with `uncounted`."""

    kind: str  # "kill" or "cut"
    protocol: str
    miles: float
    count: int  # trials in which writes were being acknowledged at the fault
    drills_with_loss: int
    loss_probability_high: float | None  # of a kill losing a write: 95 % bound, about 3/n when none did; None for cuts
    lost_writes_max: int
    lost_bytes_max: int
    recovery_point_ns_max: float | None
    completed_during_cut_max: int | None
    recovery_time_ns_max: float | None
    completed: int = 0  # acknowledged writes, over all these drills
    lost: int = 0  # of them, not at the far site
    damaged: int = 0
    notes: list[str] = []
    uncounted: dict[str, int] = {}  # trials that do not count, by recording.Uncounted
    uncounted_reasons: list[str] = []  # the same in words
    uncounted_lost: int = 0  # acknowledged writes that they lost: no less a loss
    uncounted_damaged: int = 0

    @property
    def uncounted_count(self) -> int:
        """How many trials do not count."""
        return sum(self.uncounted.values())

    @property
    def lost_in_all(self) -> int:
        """Acknowledged writes that are not at the far site, whether their trial counts or not."""
        return self.lost + self.uncounted_lost

    @property
    def damaged_in_all(self) -> int:
        """Damaged writes, whether their trial counts or not."""
        return self.damaged + self.uncounted_damaged

    @property
    def uncounted_text(self) -> str:
        """ "2 more kills do not count: the load had ended before the fault"; empty when all count."""
        if not self.uncounted:
            return ""
        count, more = self.uncounted_count, " more" if self.count else ""
        what = f"{count}{more} {self.kind}{'s' if count > 1 else ''} do{'es' if count == 1 else ''} not count"
        lost, damaged = self.uncounted_lost, self.uncounted_damaged
        harm = f", which lost {lost} and damaged {damaged} acknowledged writes" if lost or damaged else ""
        return f"{what}{harm}: {'; '.join(self.uncounted_reasons)}"


class Claim(Struct, frozen=True):
    """One of the claims farwrite was built to judge, and what this run says to it."""

    id: str  # "C1"
    claim: str  # its text
    verdict: Verdict
    sentence: str  # the verdict in words, with numbers
    details: list[str]  # further sentences
    why: str = ""  # what decided it, or why it is unknown: the sentence without name and verdict
    reasons: list[Reason] = []  # why it is unknown, where that has codes


class BudgetResult(Struct, frozen=True):
    """One budget of the run's own profile, and what this run says to it."""

    id: str  # as it is typed: "p99 2 ms", "p99 2 ms at 40 miles"
    quantile: float
    limit_ns: float
    at_miles: float | None  # null: at every distance that was measured
    verdict: Verdict
    sentence: str  # the verdict in words, with numbers
    details: list[str]  # further sentences
    why: str  # what decided it, in a few words
    reasons: list[Reason] = []  # why it is unknown, where that has codes
    cells: dict[str, Verdict] = {}  # by CellResult.cell


class Analysis(Struct, frozen=True):
    """Everything that is computed from one recording."""

    version: int
    cells: list[CellResult]
    fits: list[Fit]
    miles: list[GreatestMiles]
    drills: list[DrillResult]
    claims: list[Claim]
    base_rtt_ns: Estimate
    near_flush_ns: Estimate  # alone, at the median
    far_flush_ns: Estimate
    near_flush_both_ns: Estimate  # both sites at once
    far_flush_both_ns: Estimate
    warnings: list[Reason]
    reach: ReachResult | None = None  # where the run was a search
    budgets: list[BudgetResult] = []  # of the profile's own [[budget]]

    @property
    def verdicts(self) -> list[Claim]:
        """Everything that this run is ruled on by itself: its own budgets, then the claims."""
        own = [
            Claim(
                id=item.id, claim=OWN_BUDGET, verdict=item.verdict, sentence=item.sentence, details=item.details, why=item.why,
                reasons=item.reasons,
            )
            for item in self.budgets
        ]  # fmt: skip
        return [*own, *self.claims]


OWN_BUDGET = "a budget of this run: what a write may take, from its intended instant"
