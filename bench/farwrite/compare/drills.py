"""A drill's recording as a result set: what compare, gate and history ask of it, each trial a round of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec

from ..analysis.drill_answer import Answer, TrialAnswer, answer_of
from ..analysis.drill_outage import quantile
from ..analysis.drill_recording import DrillRecording
from ..analysis.figure import Figure, Label, ResultSet, figure_of
from ..analysis.result import Estimate, exactly
from ..base.reasons import few_trials, not_served_again, trials_uncounted

TRIALS_LEAST = 20  # For a 95th percentile (analysis/drill_answer.py).


def result_set_of_drill(recording: DrillRecording, source: str) -> ResultSet:
    """All figures of a drill."""
    answer = answer_of(recording)
    return ResultSet(
        kind="farwrite",
        source=source,
        id=f"{recording.name} {recording.started_utc}",
        started_utc=recording.started_utc,
        identity=identity_of(recording),
        figures=list(figures_of(recording, answer)),
        interrupted=recording.interrupted,
    )


def identity_of(recording: DrillRecording) -> dict[str, str]:
    """What two drills must share for a difference between them to mean anything: all but how many trials, and from which seed."""
    host, setup = recording.host, msgspec.structs.replace(recording.setup, trials=0, seed=0)
    return {
        "host": f"{host.get('cpu_count', '?')} x {host.get('cpu') or 'unknown processor'}",
        "kernel": str(host.get("kernel") or "unknown"),
        "link": recording.link.partition(":")[0],
        "scenario": f"{recording.name} {digest_of(recording.scenario)}",
        "setup": digest_of(setup),
        "protocol": setup.protocol,
        "policy": setup.policy,
        "disk": "memory" if recording.disk == "memory" else "disk",
        **({"door": setup.door} if setup.door else {}),
    }


def digest_of(what: msgspec.Struct) -> str:
    """Some letters that differ where anything in it does."""
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:12]


def figures_of(recording: DrillRecording, answer: Answer) -> Iterator[Figure]:
    """Recovery after each event, the share of time in outage, and what was lost."""
    setup = recording.setup
    labels: dict[str, Label] = {
        "drill": recording.name, "protocol": setup.protocol, "policy": setup.policy, "miles": setup.miles,
        **({"door": setup.door} if setup.door else {}),
    }  # fmt: skip
    counted = [one for one in answer.judged if one.counts]
    unknown = Estimate(value=None, warnings=[trials_uncounted(len(counted), answer.trials)])
    for index, event in enumerate(recording.scenario.event):
        times = [one.recoveries[index].time_ns for one in counted if index < len(one.recoveries)]
        known = [float(time) for time in times if time is not None]
        of_event = labels | {"event": event.text}
        for suffix, share in (("p50", 0.5), ("p95", 0.95)):
            if len(known) < len(times) or not known:
                why = not_served_again(len(times) - len(known), len(times)) if times else unknown.warnings[0]
                yield figure_of(f"recovery_time_{suffix}", of_event, Estimate(value=None, warnings=[why]))
            else:
                yield figure_of(f"recovery_time_{suffix}", of_event, over_trials(known, partial(quantile, q=share)))
    shares = [outage_share(one) for one in counted]
    yield figure_of("outage_share", labels, over_trials(shares, partial(quantile, q=0.5)) if shares else unknown)
    spoilt = answer.damaged + answer.resurrected + answer.out_of_order
    values = {"lost_writes": answer.lost, "damaged_writes": spoilt, "loss_probability": answer.loss_probability_high}
    for metric, value in values.items():
        known_value = value is not None and (counted or value > 0)  # A loss is one whatever counts.
        yield figure_of(metric, labels, exactly(float(value), answer.trials) if known_value and value is not None else unknown)


def outage_share(one: TrialAnswer) -> float:
    """Of a trial's time, what lay in outages."""
    found = one.availability
    return found.outage_ns / found.window_ns if found.window_ns else 1.0


def over_trials(values: Sequence[float], estimate: Callable[[Sequence[float]], Estimate]) -> Estimate:
    """An estimate over trials, with its value when each of them is left out: how compare knows how far it varies."""
    made = estimate(values)
    if made.value is None:
        return msgspec.structs.replace(made, warnings=[few_trials(len(values), TRIALS_LEAST)])
    without = [estimate([*values[:index], *values[index + 1 :]]).value for index in range(len(values))]
    return msgspec.structs.replace(made, without=without)
