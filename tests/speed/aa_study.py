"""The A/A study: how often comparing calls two measurements of one thing different, and how often it finds +10 %.

`make aa-study` measures some 200 comparisons of short cells on the null target and as many over the lab's link, both arms
the same and in ABBA order, sends each through the real analysis, compare and gate, and writes results/aa-study.json and .md.
The slow-down is injected into the candidate's stored histograms. It takes about twenty minutes and wants a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from farwrite import __version__
from farwrite.analysis import estimate, latency
from farwrite.analysis.analyse import analyse
from farwrite.analysis.change import Comparison, compare
from farwrite.base.documents import read_document, save_document
from farwrite.base.histogram import SLOTS, Histogram, index_of, middle_of
from farwrite.base.host.facts import host_facts, processor_time, steal_between
from farwrite.base.units import NS_PER_MS
from farwrite.compare.figures import result_set_of
from farwrite.gate.budget import parse as parse_budgets
from farwrite.gate.gate import gate
from farwrite.progress import bar
from farwrite.recording import SCHEMA_VERSION, LabFacts, Pairing, Recording, Report, Round
from farwrite.workload import profile

ROOT = Path(__file__).parents[2]

estimate.REPLICATES = latency.REPLICATES = 8  # Comparing takes nothing from the bootstrap, which is most of an analysis.
SLOWED = 1.10
STEAL_MAX = 0.05  # A profile's default.
ALPHA = 0.05

PROFILE = """
title = "A/A study"
[distance]
miles = [20]
[run]
rounds = 1
round = "60 ms"
survey_echoes = 12
floor_flushes = 5
retries = 0
steal_max = 0.05
[[cell]]
name = "write"
protocols = ["C"]
block = "4 KiB"
"""

LAB = LabFacts(
    link="", link_reason="", base_rtt=Histogram().encode(), delay_ns={}, near_directory="", far_directory="",
    near_file_system="", far_file_system="", shared_disk=True, durability="disk", direct=True, reactor="", transport={},
)  # fmt: skip

BUDGETS = """
alpha = 0.05
[[budget]]
metric = "response_p50"
not_worse_by = "5 %"
[[budget]]
metric = "response_p99"
not_worse_by = "10 %"
[[budget]]
metric = "throughput"
not_worse_by = "5 %"
"""


# What is measured


def null_rounds(count: int, round_ns: int) -> Iterator[Round]:
    """Rounds of the null target: a closed loop whose writes complete at once."""
    from farwrite.base.row import rows_of
    from farwrite.base.shared_counters import SharedCounters
    from farwrite.experiment.round import NOTHING, slices_of
    from farwrite.targets.load_loop_kernel import drive
    from farwrite.targets.null_kernel import null_target
    from farwrite.targets.replicated import flight_of, jobs_of, recorder_of
    from farwrite.workload.plan import Load, draw

    slices = 5
    load, count_max = Load(volume_bytes=1 << 30), 1 << 21
    plan = draw(load, 1, count_max)
    for index in range(count):
        while True:  # As in a run, a round of which the host took the processors is measured again.
            recorder = recorder_of(slices)
            board, history = rows_of(SharedCounters), np.zeros(1 << 10, np.int64)
            ticks = processor_time()
            drive(
                plan, jobs_of(load, np.array([0, count_max]), 1), round_ns, round_ns // slices, 0, null_target(), flight_of(1),
                recorder, board, history, np.zeros(0, np.int64),
            )  # fmt: skip
            if (steal_between(ticks, processor_time()) or 0.0) <= STEAL_MAX:
                break
        yield template(
            index, round_ns, slices=slices_of(recorder, round_ns // slices), service=Histogram(recorder.service).encode(),
            wait=NOTHING, late=NOTHING, issued=int(recorder.at[0].issued), completed=int(recorder.at[0].completed),
        )  # fmt: skip


def link_rounds(count: int) -> Iterator[Round]:
    """Rounds of durable writes under protocol C over 20 emulated miles; void ones are measured again."""
    import tempfile

    from farwrite.experiment.cells import cells_of
    from farwrite.experiment.measure import lab_spec
    from farwrite.experiment.round import measure_cell
    from farwrite.experiment.run_journal import Run
    from farwrite.lab.lab import open_lab

    parsed = profile.parse(PROFILE)
    with tempfile.TemporaryDirectory(dir=ROOT / "results") as directory:
        run = Run(parsed, "aa-study", 1, Path(directory))
        cell = cells_of(parsed)[0]
        with open_lab(lab_spec(parsed, run.directory)) as lab:
            for index in range(count):
                attempt, made = 0, measure_cell(run, lab, cell, index, 0)
                while made.status != "ok":
                    attempt += 1
                    lab.delay_ns.pop(cell.asked_rtt_ns, None)
                    made = measure_cell(run, lab, cell, index, attempt)
                yield made


def template(index: int, round_ns: int, **observed) -> Round:
    """A round without a link."""
    from farwrite.experiment.round import NOTHING

    return Round(
        cell="write-C-20", index=index, attempt=0, status="ok", reasons=[], begin_s=0.0, duration_ns=round_ns,
        survey_before=NOTHING, survey_after=NOTHING, echo_floor=NOTHING, lag=None, lag_writes_max=0, lag_bytes_max=0,
        unacknowledged=0, completed_bytes=0, flushes=0, flush_bytes=0, far_flushes=0, wire_bytes=0, blocked=0, steal=None,
        link={}, audit=None, **observed,
    )  # fmt: skip


# How it is judged


def result_set(rounds: Sequence[Round], arm: str, comparison: int):
    """Rounds as one arm of an experiment, through the real analysis."""
    from farwrite.experiment.cells import cells_of

    parsed = profile.parse(PROFILE)
    again = [msgspec.structs.replace(item, index=index) for index, item in enumerate(rounds)]
    recording = Recording(
        farwrite=__version__, id=f"{arm}-{comparison}", started_utc="", duration_s=0.0, command=[], profile_name="aa-study",
        profile=parsed, profile_digest="", seed=comparison, host={}, lab=LAB, cells=cells_of(parsed), rounds=again,
        floors=[], drills=[], interrupted=False, notes=[],
        pairing=Pairing(id=str(comparison), arm="base" if arm == "base" else "cand", what=arm),
    )  # fmt: skip
    made = result_set_of(Report(schema_version=SCHEMA_VERSION, recording=recording), analyse(recording), arm)
    # The null target has no link that could have been what it claimed, and its generator is all there is.
    figures = [msgspec.structs.replace(item, withheld=[]) for item in made.figures]
    return msgspec.structs.replace(made, figures=figures)


def slowed(item: Round, factor: float) -> Round:
    """The round as it would be had every write taken `factor` times as long."""
    slices = [
        msgspec.structs.replace(
            part, response=moved(part.response, factor), completed=round(part.completed / factor),
            completed_bytes=round(part.completed_bytes / factor),
            within=None if part.within is None else round(part.within / factor),
            within_bytes=None if part.within_bytes is None else round(part.within_bytes / factor),
        )
        for part in item.slices
    ]  # fmt: skip
    return msgspec.structs.replace(item, slices=slices)


def moved(text: str, factor: float) -> str:
    """A histogram with every value multiplied; values of one slot stay together."""
    found = Histogram.decode(text)
    used = found.used()
    slots = index_of(np.rint(middle_of(used) * factor).astype(np.int64))
    return Histogram(np.bincount(slots, weights=found.counts[used], minlength=SLOTS).astype(np.int64)).encode()


def outcome(base: Sequence[Round], cand: Sequence[Round], number: int) -> dict:
    """What compare and gate say of one comparison."""
    ours, theirs = result_set(base, "base", number), result_set(cand, "cand", number)
    compared: Comparison = compare([ours], [theirs])
    rows = {row.metric: row for row in compared.rows if row.metric in ("response_p50", "response_p99", "throughput")}
    ruled = gate(theirs, parse_budgets(BUDGETS), baseline=ours)
    return {
        "changes": {metric: round(row.change.value or 0.0, 5) for metric, row in rows.items()},
        "verdicts": {metric: row.verdict for metric, row in rows.items()},
        "gate": {decided.metric: decided.verdict for decided in ruled.verdicts},
    }


def arms(rounds: Sequence[Round], pairs: int) -> Iterator[tuple[list[Round], list[Round]]]:
    """Successive comparisons of `pairs` pairs in ABBA order."""
    width = 2 * pairs
    for begin in range(0, len(rounds) - width + 1, width):
        some = rounds[begin : begin + width]
        order = [("AB" if pair % 2 == 0 else "BA") for pair in range(pairs)]
        letters = "".join(order)
        yield (
            [item for item, letter in zip(some, letters, strict=True) if letter == "A"],
            [item for item, letter in zip(some, letters, strict=True) if letter == "B"],
        )


def study(name: str, rounds: Sequence[Round], pairs: int, progress) -> dict:
    """All comparisons of one kind of cell: nothing changed, and +10 %."""
    nothing, more = [], []
    for number, (base, cand) in enumerate(arms(rounds, pairs)):
        progress.doing(f"{name}: comparison {number + 1}")
        nothing.append(outcome(base, cand, number))
        more.append(outcome(base, [slowed(item, SLOWED) for item in cand], number))
    differs = ("faster", "slower")
    called = sum(any(verdict in differs for verdict in item["verdicts"].values()) for item in nothing)
    failed = sum("fail" in item["gate"].values() for item in nothing)
    found = sum(item["verdicts"]["response_p50"] == "slower" for item in more)
    caught = sum("fail" in item["gate"].values() for item in more)
    count = len(nothing)
    return {
        "cell": name, "comparisons": count, "pairs": pairs, "round_ms": rounds[0].duration_ns / NS_PER_MS,
        "writes_a_round": int(np.median([item.completed for item in rounds])),
        "compare_false_alarms": share(called, count), "gate_false_alarms": share(failed, count),
        "compare_finds_10_percent_at_p50": share(found, count), "gate_fails_at_10_percent": share(caught, count),
        "p50_change_sd": round(float(np.std([item["changes"]["response_p50"] for item in nothing])), 5),
        "nothing_changed": nothing, "ten_percent_more": more,
    }  # fmt: skip


def share(found: int, count: int) -> dict:
    """A share with its exact binomial interval (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest

    interval = binomtest(found, count).proportion_ci(0.95)
    return {"found": found, "of": count, "share": round(found / count, 4),
            "low": round(float(interval.low), 4), "high": round(float(interval.high), 4)}  # fmt: skip


def page(made: dict) -> str:
    """The study as a page."""

    def told(part: dict) -> str:
        return f"{part['found']} of {part['of']}: {part['share']:.1%} [{part['low']:.1%}, {part['high']:.1%}]"

    lines = [
        "# A/A study", "",
        f"Made by `make aa-study` on {made['started_utc'][:10]}, {made['host'].get('cpu_count')} x {made['host'].get('cpu')}, "
        f"farwrite {made['farwrite']}. Both arms are the same thing; intervals are exact binomial ones at 95 %.", "",
        f"| | {' | '.join(part['cell'] for part in made['studies'])} |",
        f"|---|{'---|' * len(made['studies'])}",
    ]  # fmt: skip
    rows = {
        "pairs of rounds a comparison": lambda p: f"{p['pairs']} of {p['round_ms']:g} ms, {p['writes_a_round']:,} writes each",
        f"compare calls a difference (at most {ALPHA:.0%} stated)": lambda p: told(p["compare_false_alarms"]),
        f"gate fails (at most {ALPHA:.0%} stated)": lambda p: told(p["gate_false_alarms"]),
        "compare finds +10 % at p50": lambda p: told(p["compare_finds_10_percent_at_p50"]),
        "gate of 5 % fails at +10 %": lambda p: told(p["gate_fails_at_10_percent"]),
        "p50 of the two arms differs by (standard deviation)": lambda p: f"{p['p50_change_sd']:.2%}",
    }
    lines += [f"| {name} | {' | '.join(tell(part) for part in made['studies'])} |" for name, tell in rows.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--comparisons", type=int, default=200)
    words.add_argument("--only", choices=("null", "link"), help="measure one kind of cell and keep the other's results")
    words.add_argument("--out", type=Path, default=ROOT / "results")
    asked = words.parse_args()
    file = asked.out / "aa-study.json"
    kept = json.loads(read_document(file, "read"))["studies"] if asked.only else []
    studies = []
    with bar() as progress:
        from farwrite.experiment.compilation import compile_all

        compile_all(progress)
        # A neighbour on the host halves the null target's speed for tens of milliseconds: short rounds meet it alike.
        for kind, name, pairs, measure in (
            ("null", "null target", 60, lambda count: null_rounds(count, 10 * NS_PER_MS)),
            ("link", "C over 20 miles", 20, link_rounds),
        ):
            if asked.only not in (None, kind):
                studies += [part for part in kept if part["cell"] == name]
                continue
            count = 2 * pairs * asked.comparisons
            measured = measure(count)
            progress.expect(count)
            rounds = []
            for item in measured:
                rounds.append(item)
                progress.doing(f"{name}: round {len(rounds)} of {count}")
                progress.did(1)
            studies.append(study(name, rounds, pairs, progress))
    made = {"farwrite": __version__, "started_utc": datetime.now(UTC).isoformat(timespec="seconds"), "command": sys.argv[1:],
            "host": host_facts(), "alpha": ALPHA, "slowed": SLOWED, "studies": studies}  # fmt: skip
    save_document(file, (json.dumps(made) + "\n").encode())
    (asked.out / "aa-study.md").write_text(page(made))
    print(page(made))


if __name__ == "__main__":
    main()
