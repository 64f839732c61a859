"""Charts of a drill: the timeline of a trial, and its recovery in phases beside other systems' published figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ...analysis.drill_answer import Answer
from ...analysis.drill_outage import PHASES, good_ns, outages
from ...analysis.drill_recording import ACKED, NEVER, STANDS, TAKES, DrillRecording, Trial
from ...base.units import NS_PER_MS, NS_PER_S, format_time
from .plot import Choice, Option, Plot, layout_of

SLOT_NS = 50 * NS_PER_MS
POINTS_MAX = 2000  # Latencies drawn of a trial; of more every n-th, and the slowest of each stretch.
TRIALS_MAX = 100  # Whose timelines travel in a page.
PHASE_COLOURS = ("--wait", "--A", "--B", "--C", "--quorum")
NODE_COLOURS = {"near": "--near", "far": "--far"}

# What ends the state that an event begins, at its site or link: for the lanes of the timeline.
ENDS = {
    "kill": ("restart",), "power-off": ("restart",), "lose": (), "stop": ("continue", "kill", "restart"), "cut": ("heal",),
    "blackhole": ("heal",), "slow": ("heal",), "lossy": ("heal",), "disk-full": ("restart",), "disk-refuse": ("restart",),
    "disk-stall": ("disk-heal", "restart", "kill"),
}  # fmt: skip


class Published(NamedTuple):
    """Another system's figure for the loss of whoever serves, as its source has it: nothing of it was measured here."""

    system: str
    low_s: float
    high_s: float
    source: str


PUBLISHED = (
    Published("vSphere HA declares a host dead", 15, 18, "yellow-bricks.com 2021-01-26; the restart of its guests comes on top"),
    Published("repmgr, defaults", 60, 60, "repmgr.org: 6 attempts, 10 s apart"),
    Published("MySQL Group Replication, defaults", 10, 10, "dev.mysql.com, WL#13773: suspected after 5 s, expelled 5 s later"),
    Published("CockroachDB, crash, leases of 9 s", 14.5, 14.5, "cockroachdb/cockroach PR 92991, the longest measured"),
    Published("CockroachDB, tuned leader leases", 0.6, 1.6, "cockroachdb/cockroach PR 166488, writes over three US regions"),
    Published("TiDB behind TiProxy", 27, 27, "pingcap/tiproxy #626"),
)


def timeline_plot(recording: DrillRecording) -> Plot:
    """What the client saw of a trial over its time, and what was done meanwhile; the reader chooses the trial."""
    shown = recording.trials[:TRIALS_MAX]
    data = [trace for trial in shown for trace in traces(trial, recording.setup.bound_ns)]
    lanes = list(dict.fromkeys(trace["y"][0] for trace in data if trace.get("yaxis") == "y3"))
    options = [Option(str(trial.index), f"trial {trial.index + 1}", at == 0) for at, trial in enumerate(shown)]
    more = len(recording.trials) - len(shown)
    left_out = f" The first {TRIALS_MAX} trials are drawn, {more} more are not." if more else ""
    return Plot(
        id="timeline",
        title="Timeline of a trial",
        caption="Writes acknowledged a second, their response times, who led, and what was done to sites, links and disks.",
        note="Time counts from the first acknowledged write. Above: writes acknowledged, in slots of 50 ms. In the middle: from "
        "the intended instant of a write to its acknowledgement, on a log scale. Below: which node served the client and "
        f"in which epoch, outages, and how long each fault was in force. Vertical lines are the events.{left_out}",
        data=data,
        layout=layout_of(
            {"title": {"text": "s since the first acknowledged write"}, "anchor": "y3"},
            {"title": {"text": "writes/s"}, "domain": [0.66, 1.0], "rangemode": "tozero"},
            height=660, showlegend=False, margin={"l": 64, "r": 90, "t": 90, "b": 56},
            yaxis2={"title": {"text": "ms"}, "type": "log", "domain": [0.3, 0.6], "gridcolor": "--grid", "automargin": True},
            yaxis3={"domain": [0.0, 0.24], "type": "category", "automargin": True, "gridcolor": "--grid",
                    "categoryorder": "array", "categoryarray": lanes[::-1]},
        ),
        choices=[Choice("trial", "Trial", False, options)],
        marks=[mark for trial in shown for mark in event_marks(trial)],
    )  # fmt: skip


def traces(trial: Trial, bound_ns: int) -> Iterator[dict[str, Any]]:
    """All that is drawn of one trial but its events."""
    meta = {"trial": str(trial.index)}
    history = trial.history
    acked = [
        (done, done - intended)
        for done, intended, outcome in zip(history.done_ns, history.intended_ns, history.outcome, strict=True) if outcome == ACKED
    ]  # fmt: skip
    end_ns = max([trial.stopped_ns, 1])
    counts = [0] * (end_ns // SLOT_NS + 1)
    for done, _ in acked:
        if 0 <= done < end_ns:
            counts[done // SLOT_NS] += 1
    yield {
        "type": "scatter", "mode": "lines", "line": {"shape": "hv", "color": "--C", "width": 1.5}, "meta": meta,
        "name": "writes/s",
        "x": [seconds(at * SLOT_NS) for at in range(len(counts))], "y": [round(count * NS_PER_S / SLOT_NS) for count in counts],
        "hovertemplate": "%{x:.2f} s: %{y} writes/s<extra></extra>",
    }  # fmt: skip
    points = thinned(sorted(acked))
    yield {
        "type": "scatter", "mode": "markers", "marker": {"size": 3, "color": "--A"}, "yaxis": "y2", "meta": meta,
        "name": "latency",
        "x": [seconds(done) for done, _ in points], "y": [round(max(time, 1000) / NS_PER_MS, 3) for _, time in points],
        "hovertemplate": "%{x:.3f} s: %{y:.3g} ms<extra></extra>",
    }  # fmt: skip
    for name, begin_ns, until_ns, colour, words in lanes_of(trial, bound_ns, end_ns):
        yield {
            "type": "scatter", "mode": "lines", "line": {"width": 9, "color": colour}, "yaxis": "y3", "meta": meta, "name": words,
            "x": [seconds(begin_ns), seconds(until_ns)], "y": [name, name],
            "hovertemplate": f"{words}: {format_time(max(until_ns - begin_ns, 0))}<extra></extra>",
        }  # fmt: skip


def thinned(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Not too many of (done, time): of each stretch its first and its slowest."""
    step = -(-len(points) // (POINTS_MAX // 2)) or 1
    if step < 2:
        return list(points)
    kept: set[tuple[int, int]] = set()
    for at in range(0, len(points), step):
        part = points[at : at + step]
        kept |= {part[0], max(part, key=lambda one: one[1])}
    return sorted(kept)


def lanes_of(trial: Trial, bound_ns: int, end_ns: int) -> Iterator[tuple[str, int, int, str, str]]:
    """(lane, begin, end, colour, words) of everything that lasts."""
    for one in trial.connections:
        closed_ns = end_ns if one.closed_ns == NEVER else one.closed_ns
        colour = NODE_COLOURS.get(one.node, "--quorum")
        yield "served by", max(one.opened_ns, 0), max(closed_ns, 0), colour, f"{one.node}, epoch {one.epoch}"
    for begin, end in outages(good_ns(trial.history, bound_ns), 0, trial.stopped_ns, bound_ns):
        yield "outage", begin, end, "--bad", "no write within the bound"
    for note, following in pairwise([*trial.notes, None]):
        assert note is not None
        if note.what == STANDS:
            until_ns = following.at_ns if following is not None and following.node == note.node else note.at_ns + SLOT_NS // 10
            yield f"{note.node} stands", note.at_ns, until_ns, "--quorum", f"{note.node} stands for election"
        elif note.what == TAKES and note.at_ns >= 0:
            words = f"{note.node} takes writes, epoch {note.epoch}"
            yield f"{note.node} stands", note.at_ns, note.at_ns + SLOT_NS // 10, "--C", words
    for at, event in enumerate(trial.events):
        action, _, place = event.text.partition(" ")
        if action not in ENDS:
            continue
        names = set(place.partition(" by ")[0].replace(" to ", " - ").split(" - "))
        until_ns = end_ns
        for later in trial.events[at + 1 :]:
            ending, _, there = later.text.partition(" ")
            if ending in ENDS[action] and set(there.replace(" to ", " - ").split(" - ")) == names:
                until_ns = later.begin_ns
                break
        yield " - ".join(sorted(names)), event.begin_ns, until_ns, "--wait", event.text


def event_marks(trial: Trial) -> Iterator[dict[str, Any]]:
    """A vertical line with its words for each event."""
    meta = {"trial": str(trial.index)}
    for event in trial.events:
        x = seconds(event.begin_ns)
        yield {"meta": meta, "shape": {
            "type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": "--ink", "width": 1, "dash": "dot"},
        }}  # fmt: skip
        yield {"meta": meta, "annotation": {
            "x": x, "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": "left", "showarrow": False, "textangle": -20,
            "text": event.text, "font": {"size": 11, "color": "--ink"},
        }}  # fmt: skip


def seconds(at_ns: int) -> float:
    """For the axis."""
    return round(at_ns / NS_PER_S, 4)


def phases_plot(recording: DrillRecording, answer: Answer) -> Plot:
    """Recovery by phase, medians, and below it what other systems' sources say of theirs."""
    ours = [(f"farwrite, {event.event}", event) for event in answer.events if event.phases_p50]
    data: list[dict[str, Any]] = []
    for phase, colour in zip(PHASES, PHASE_COLOURS, strict=True):
        values = [event.phases_p50[phase].value for _, event in ours]
        data.append({
            "type": "bar", "orientation": "h", "name": phase, "marker": {"color": colour}, "y": [name for name, _ in ours],
            "x": [None if value is None else round(value / NS_PER_S, 4) for value in values],
            "hovertemplate": phase + ": %{x:.3f} s<extra></extra>",
        })  # fmt: skip
    data.append({
        "type": "bar", "orientation": "h", "name": "published elsewhere", "marker": {"color": "--line"},
        "y": [one.system for one in PUBLISHED], "x": [one.high_s for one in PUBLISHED],
        "error_x": {"type": "data", "symmetric": False, "array": [0 for _ in PUBLISHED],
                    "arrayminus": [one.high_s - one.low_s for one in PUBLISHED], "color": "--ink"},
        "hovertemplate": "%{y}: up to %{x:g} s<extra></extra>",
    })  # fmt: skip
    names = [*(name for name, _ in ours), *(one.system for one in PUBLISHED)]
    sources = "; ".join(f"{one.system}: {one.source}" for one in PUBLISHED)
    phases = "; ".join(
        f"{name}: {', '.join(f'{phase} {format_time(event.phases_p50[phase].value or 0)}' for phase in PHASES)}"
        for name, event in ours
    )
    return Plot(
        id="phases",
        title="Recovery in phases, beside published figures",
        caption=phases or "No other replica took over in this drill, so its recovery has no phases.",
        note=f"Medians over the trials in which another replica took over ({recording.setup.miles:g} miles, protocol "
        f"{recording.setup.protocol}); a median of each phase, so they need not add up to that of the whole. The figures of "
        f"others are from their own sources, of other faults on other machines, and none was measured here. {sources}.",
        data=data,
        layout=layout_of(
            {"title": {"text": "s"}, "type": "linear"},
            {"type": "category", "categoryorder": "array", "categoryarray": names[::-1]},
            height=110 + 40 * len(names), barmode="stack",
        ),
        choices=[Choice("layout.xaxis.type", "Scale", False, [Option("linear", "linear", True), Option("log", "log", False)])],
    )
