"""What a drill's trials say together: what was lost, how sure that is, how long recovery took, how much of the time was served.

A trial counts where writes were being acknowledged, by the near site, right up to the fault, and where recovery has provably
ended. Every other is kept with its reason: with nothing at stake nothing can be lost, and it must not flatter the bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..base.physics import rtt_ns_of
from ..base.protocol import DURABLE
from ..base.units import NS_PER_MS, NS_PER_S, format_time
from ..workload.drill_scenario import SITES, Setup
from .drill_audit import Verdict, check
from .drill_outage import PHASES, ROUTE, Availability, Recovered, added, availability, quantile, recoveries
from .drill_recording import ACKED, DrillRecording, Trial
from .drill_servers import Pauses, pauses
from .drill_sessions import Sessions, sessions
from .estimate import loss_probability_high
from .result import Estimate

ALIVE_NS_MIN, ALIVE_ROUND_TRIPS, ALIVE_ARRIVALS = 250 * NS_PER_MS, 4, 10  # As experiment/drill/drills.py; two hops to a client.


class TrialAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One trial, judged."""

    index: int
    counts: bool
    why: str  # why it does not count, or why nothing can be said; empty: it counts
    verdict: Verdict | None  # null: unknown
    differs: list[str]  # replicas whose volume is not that of the one that counts
    recovery_point_ns: int | None  # from the oldest lost write's acknowledgement to the loss; 0: nothing was lost
    lost_bytes: int
    recoveries: list[Recovered]
    availability: Availability


class PhaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Recovery from one event of the scenario, over the trials that count."""

    event: str
    kind: str
    time_p50: Estimate  # ns
    time_p95: Estimate
    phases_p50: dict[str, Estimate]  # over the trials in which another took over; empty where in none
    without: int  # trials that ended before it was over
    taken_over: int
    route_p50: dict[str, Estimate] = {}  # parts of the phase "route", over the trials in which it went through a door


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole drill."""

    trials: int
    counted: int
    uncounted: dict[str, int]  # reason: trials
    outcome: str  # "kept", "lost", "corrupt" or "unknown"
    promised: bool  # whether protocol and policy promise that one fault loses nothing
    trials_with_loss: int
    loss_probability_high: float | None
    acked: int
    lost: int
    recovered: int
    damaged: int
    resurrected: int
    out_of_order: int
    lost_writes_max: int
    lost_bytes_max: int
    recovery_point_ns_max: int | None
    events: list[PhaseAnswer]
    availability: Availability
    pauses: list[Pauses] = []  # by event, where servers are told apart
    sessions: list[Sessions] = []  # by event, where the client came through a door
    strays: int = 0  # answers of a door to nothing that was asked on their connection
    under_one_primary: int = 0  # trials in which one replica led in one epoch from beginning to end, as the client saw it
    judged: list[TrialAnswer]


def answer_of(recording: DrillRecording) -> Answer:
    """Judge every trial, then all of them."""
    judged = [judge(trial, recording) for trial in recording.trials]
    counted = [one for one in judged if one.counts]
    known = [one.verdict for one in judged if one.verdict is not None]  # What is lost is lost, counted or not.
    sums = {
        name: sum(getattr(one, name) for one in known)
        for name in ("acked", "lost", "recovered", "damaged", "resurrected", "out_of_order")
    }
    with_loss = sum(one.verdict is not None and not one.verdict.is_clean for one in counted)
    reasons: dict[str, int] = {}
    for one in judged:
        if one.why:
            reasons[one.why] = reasons.get(one.why, 0) + 1
    strays = sum(trial.strays for trial in recording.trials)
    corrupt = any(verdict.is_corrupt for verdict in known) or any(one.differs for one in judged) or strays > 0
    exposures = [one.recovery_point_ns for one in counted if one.recovery_point_ns is not None]
    setup, places = recording.setup, [place for place, one in enumerate(judged) if one.counts]
    return Answer(
        trials=len(judged), counted=len(counted), uncounted=reasons,
        outcome="corrupt" if corrupt else "lost" if sums["lost"] else "kept" if counted else "unknown",
        promised=setup.protocol in DURABLE and setup.policy != "suspend-replication",
        trials_with_loss=with_loss,
        loss_probability_high=loss_probability_high(with_loss, len(counted)) if counted else None,
        lost_writes_max=max((one.verdict.lost for one in counted if one.verdict), default=0),
        lost_bytes_max=max((one.lost_bytes for one in counted), default=0),
        recovery_point_ns_max=max(exposures, default=None),
        events=[event_answer(index, counted) for index in range(len(recording.scenario.event))] if counted else [],
        availability=added([one.availability for one in counted]), judged=judged, **sums,
        under_one_primary=sum(len({(one.node, one.epoch) for one in trial.connections}) == 1 for trial in recording.trials),
        pauses=pauses(recording, places) if recording.scenario.servers else [],
        sessions=sessions(recording, places) if setup.door and places else [], strays=strays,
    )  # fmt: skip


def judge(trial: Trial, recording: DrillRecording) -> TrialAnswer:
    """One trial by itself."""
    setup = recording.setup
    why = trial.unknown or not_at_stake(trial, recording)
    verdict, differs = None, []
    if trial.found:
        first, *others = trial.found
        verdict = check(trial.history, first.block)
        differs = [other.node for other in others if other.block != first.block]
    return TrialAnswer(
        index=trial.index, counts=not why, why=why, verdict=verdict, differs=differs,
        recovery_point_ns=exposed_ns(trial, verdict) if verdict else None,
        lost_bytes=verdict.lost * setup.size_bytes if verdict else 0, recoveries=recoveries(trial, setup.bound_ns),
        availability=availability(trial, setup.bound_ns),
    )  # fmt: skip


def not_at_stake(trial: Trial, recording: DrillRecording) -> str:
    """Why nothing was at stake at the fault, empty where something was."""
    if len(trial.events) <= recording.scenario.first_fault:
        return "the fault did not come"
    fault_ns = trial.events[recording.scenario.first_fault].begin_ns
    history = trial.history
    before = [
        (done, connection) for done, outcome, connection in zip(history.done_ns, history.outcome, history.connection, strict=True)
        if outcome == ACKED and done <= fault_ns
    ]  # fmt: skip
    if not before:
        return "no write had been acknowledged at the fault"
    done_ns, connection = max(before)
    if trial.connections[connection].node != SITES[0]:
        return "the near site led no longer at the fault"
    alive_ns = alive_ns_of(recording.setup)
    return "" if fault_ns - done_ns <= alive_ns else f"no write was acknowledged in the {format_time(alive_ns)} before the fault"


def alive_ns_of(setup: Setup) -> int:
    """How old the last acknowledgement may be at the fault."""
    gaps_ns = round(ALIVE_ARRIVALS * NS_PER_S / setup.offered_per_s) if setup.offered_per_s else 0
    return max(ALIVE_NS_MIN, ALIVE_ROUND_TRIPS * rtt_ns_of(setup.miles), gaps_ns)


def exposed_ns(trial: Trial, verdict: Verdict) -> int:
    """The recovery point in time: how long the oldest lost write had been acknowledged at the last fault."""
    if verdict.oldest_lost is None or verdict.newest_lost is None:
        return 0
    newest_ns = trial.history.done_ns[verdict.newest_lost]
    faults = [event.end_ns for event in trial.events if event.kind == "fault"]
    return max([newest_ns, *faults]) - trial.history.done_ns[verdict.oldest_lost]


def event_answer(index: int, counted: Sequence[TrialAnswer]) -> PhaseAnswer:
    """Recovery from one event over the trials; a trial that ended before it is left out."""
    found = [one.recoveries[index] for one in counted if index < len(one.recoveries)]
    times = [one.time_ns for one in found if one.time_ns is not None]
    divided = [one.phases for one in found if one.phases]
    routes = [one.route for one in found if one.route]
    return PhaseAnswer(
        event=found[0].event if found else "", kind=found[0].kind if found else "",
        time_p50=quantile(times, 0.5), time_p95=quantile(times, 0.95),
        phases_p50={name: quantile([one[name] for one in divided], 0.5) for name in PHASES} if divided else {},
        without=sum(one.time_ns is None for one in found), taken_over=len(divided),
        route_p50={name: quantile([one[name] for one in routes], 0.5) for name in ROUTE} if routes else {},
    )  # fmt: skip
