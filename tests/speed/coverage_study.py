"""The coverage study: how often the intervals of a report contain the truth, in worlds whose truth is known.

`make coverage-study` draws runs of 2 to 20 rounds from worlds in which rounds differ in five ways, sends each through the real
estimators (pooled quantiles, the mean over rounds, the fit, the greatest miles), and counts how often the stated 95 % interval
holds the value that infinitely many rounds would give. It then compares two runs of machines that drift from hour to hour,
with and without a history of earlier runs, and counts how often a change is called where there is none. It measures nothing,
takes a few minutes, and writes results/coverage.json and .md; `--only runs` makes the second part anew and keeps the first.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farwrite import __version__
from farwrite.analysis import estimate, latency
from farwrite.analysis.between_runs import EarlierRuns, RunHistory
from farwrite.analysis.change import ALPHA, UNCHANGED, Comparison, compare, key_of, level_of
from farwrite.analysis.distance import Place, line_of, reach
from farwrite.analysis.estimate import Draws, mean_over_rounds
from farwrite.analysis.figure import METRICS as KNOWN
from farwrite.analysis.figure import Figure, Label, ResultSet
from farwrite.analysis.latency import Pool
from farwrite.analysis.result import Estimate
from farwrite.analysis.sample import Sample
from farwrite.base.histogram import index_of
from farwrite.base.physics import miles_of, rtt_ns_of
from farwrite.base.units import NS_PER_MS
from farwrite.recording import Cell

ROOT = Path(__file__).parents[2]
ROUNDS = (2, 3, 5, 10, 20)
METRICS = ("p50", "p99", "throughput", "k", "a", "greatest miles")
MILES = (0.0, 20.0, 60.0, 150.0)
A_NS = 300_000.0  # what a write waits for that is not distance, at the median
NOISE = 0.1  # of a, from write to write
WRITES = 400  # a round: p99 needs 368
BUDGET_NS = 2 * NS_PER_MS
THERE = 1  # p50, p99 and throughput are those of the cell at MILES[THERE]
POPULATION = 200_000  # rounds that stand for infinitely many

Rounds = Callable[[np.random.Generator, int, int], np.ndarray]  # (dice, runs, rounds) -> logarithm of each round's factor on a


def iid(dice: np.random.Generator, runs: int, rounds: int) -> np.ndarray:
    return 0.02 * dice.standard_normal((runs, rounds))


def drifting(dice: np.random.Generator, runs: int, rounds: int) -> np.ndarray:
    """AR(1): each round is 0.7 of the one before and something new; 5 % in all."""
    found = np.empty((runs, rounds))
    found[:, 0] = dice.standard_normal(runs)
    for place in range(1, rounds):
        found[:, place] = 0.7 * found[:, place - 1] + np.sqrt(1 - 0.7**2) * dice.standard_normal(runs)
    return 0.05 * found


def with_outliers(dice: np.random.Generator, runs: int, rounds: int) -> np.ndarray:
    return iid(dice, runs, rounds) + np.log(1.5) * (dice.random((runs, rounds)) < 0.05)


def bimodal(dice: np.random.Generator, runs: int, rounds: int) -> np.ndarray:
    return 0.005 * dice.standard_normal((runs, rounds)) + 0.05 * dice.choice([-1.0, 1.0], (runs, rounds))


def heavy_tailed(dice: np.random.Generator, runs: int, rounds: int) -> np.ndarray:
    return np.clip(0.02 * dice.standard_t(2, (runs, rounds)), -1.0, 1.0)


WORLDS: dict[str, tuple[str, Rounds]] = {
    "iid": ("independent rounds, normal, 2 %", iid),
    "AR(1)": ("drift: each round is 0.7 of the one before, 5 % in all", drifting),
    "outliers": ("2 %, and one round in 20 is 1.5 times as slow", with_outliers),
    "bimodal": ("two levels, 5 % above and below, equally often", bimodal),
    "heavy tail": ("Student's t with 2 degrees of freedom, 2 %", heavy_tailed),
}  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What infinitely many rounds of a world give."""

    p50: float
    p99: float
    throughput: float
    a: float
    miles: float

    def of(self, metric: str) -> float:
        return {"k": 1.0, "greatest miles": self.miles}.get(metric) or getattr(self, metric)


def truth_of(world: Rounds, seed: int) -> Truth:
    """By brute force: many rounds, some writes of each."""
    dice = np.random.default_rng([seed, 1])
    # Short runs, each from the stationary distribution, are as good as one long one.
    factors = np.exp(world(dice, POPULATION // 10, 10).ravel())
    writes = A_NS * factors[:, None] * np.exp(NOISE * dice.standard_normal((factors.size, 10)))
    p50, p99 = np.quantile(writes, [0.5, 0.99])
    rtt_ns = rtt_ns_of(MILES[THERE])
    rates = 1e9 / (A_NS * factors * np.exp(NOISE**2 / 2) + rtt_ns)
    return Truth(p50 + rtt_ns, p99 + rtt_ns, float(rates.mean()), p50, miles_of(BUDGET_NS - p50))


def sample_of(values_ns: np.ndarray) -> Sample:
    """What a histogram would have counted."""
    slot, counts = np.unique(index_of(values_ns.astype(np.int64)), return_counts=True)
    return Sample(slot.astype(np.int64), counts.astype(np.int64))


def cell_at(miles: float) -> Cell:
    return Cell(id=f"write-C-{miles:g}", name="write", protocol="C", miles=miles, asked_rtt_ns=rtt_ns_of(miles), queue_depth=1,
                arrival="closed", size_bytes=4096, offered_per_s=None)  # fmt: skip


CELLS = [cell_at(miles) for miles in MILES]


def estimates_of(factors: np.ndarray, dice: np.random.Generator, seed: int) -> dict[str, Estimate]:
    """What a report would say of one run; `factors` by round."""
    rounds = factors.size
    draws, indices = Draws(seed, rounds), range(rounds)
    rtt_ns = np.array([cell.asked_rtt_ns for cell in CELLS])
    writes = A_NS * factors[None, :, None] * np.exp(NOISE * dice.standard_normal((len(CELLS), rounds, WRITES)))
    times_ns = writes + rtt_ns[:, None, None]
    empty = Pool("rtt", indices, [sample_of(np.array([100.0]))] * rounds, draws)
    places = [
        Place(cell, empty, Pool(cell.id, indices, [sample_of(part) for part in those], draws), True, "light")
        for cell, those in zip(CELLS, times_ns, strict=True)
    ]
    there = places[THERE].response
    line = line_of(places, 0.5)
    return {
        "p50": there.estimate(0.5), "p99": there.estimate(0.99),
        "throughput": mean_over_rounds((1e9 / times_ns[THERE].mean(axis=1)).tolist(), list(indices)),
        "k": line.k, "a": line.a_ns, "greatest miles": reach(line, BUDGET_NS, 1.0, 0.0).miles,
    }  # fmt: skip


# Two runs, each of its own hour

RUN_ROUNDS = 5
LEVEL = 0.05  # What hours differ by, all in all.
ALIKE = 0.7  # Of an hour's level, in the next one.
SLOWED = 1.10
HISTORIES = (0, 3, 8)
LABELS: dict[str, Label] = {"name": "write", "protocol": "C", "miles": MILES[THERE], "queue_depth": 1}

Levels = Callable[[np.random.Generator, int], np.ndarray]  # (dice, earlier runs) -> as above, by run; base and cand last


def nights(dice: np.random.Generator, earlier: int) -> np.ndarray:
    return LEVEL * dice.standard_normal(earlier + 2)


def hours(dice: np.random.Generator, earlier: int) -> np.ndarray:
    found = np.empty(earlier + 2)
    found[0] = dice.standard_normal()
    for place in range(1, found.size):
        found[place] = ALIKE * found[place - 1] + np.sqrt(1 - ALIKE**2) * dice.standard_normal()
    return LEVEL * found


def hours_then_a_day(dice: np.random.Generator, earlier: int) -> np.ndarray:
    return np.append(hours(dice, earlier)[:-1], LEVEL * dice.standard_normal())


def no_drift(dice: np.random.Generator, earlier: int) -> np.ndarray:
    return np.zeros(earlier + 2)


MACHINES: dict[str, tuple[str, Levels]] = {
    "no drift": ("all runs at one level", no_drift),
    "nights": ("a run a night, each at its own level, 5 %", nights),
    "hours": ("a run an hour, its level 0.7 of the hour before, 5 % in all; the candidate an hour after the baseline", hours),
    "hours, then a day": ("the same, and the candidate so much later that its level knows nothing of theirs", hours_then_a_day),
}  # fmt: skip


def run_at(level: float, dice: np.random.Generator, name: str, slowed: float = 1.0) -> ResultSet:
    """What a report would say of one run of the cell at MILES[THERE], its writes taking `slowed` times as long."""
    factors = np.exp(level + iid(dice, 1, RUN_ROUNDS)[0])
    times_ns = A_NS * factors[:, None] * np.exp(NOISE * dice.standard_normal((RUN_ROUNDS, WRITES))) + rtt_ns_of(MILES[THERE])
    times_ns *= slowed
    pool = Pool(name, range(RUN_ROUNDS), [sample_of(part) for part in times_ns], Draws(1, RUN_ROUNDS))
    values = {"response_p50": pool.estimate(0.5), "response_p99": pool.estimate(0.99),
              "throughput": mean_over_rounds((1e9 / times_ns.mean(axis=1)).tolist(), list(range(RUN_ROUNDS)))}  # fmt: skip
    figures = [
        Figure(metric=metric, labels=LABELS, unit=KNOWN[metric].unit, better=KNOWN[metric].better, exact=False, estimate=value)
        for metric, value in values.items()
    ]
    return ResultSet(kind="farwrite", source=name, id=name, started_utc="", identity={}, figures=figures)


def history_of(result_sets: list[ResultSet]) -> RunHistory:
    """Earlier runs as `history.py` would find them."""
    levels: dict = {}
    for result_set in result_sets:
        for figure in result_set.figures:
            levels.setdefault(key_of(figure), []).append(level_of(figure))
    return RunHistory(EarlierRuns(results="results", runs=len(result_sets)), levels)


def compared_of(task: tuple[str, int, int, int]) -> dict:
    """One machine and number of earlier runs: how often two runs are told apart, with nothing changed and with a slow-down."""
    name, earlier, trials, seed = task
    dice = np.random.default_rng([seed, 3, list(MACHINES).index(name), earlier])
    same, slower = [], []
    with few_replicates():
        for _ in range(trials):
            levels = MACHINES[name][1](dice, earlier)
            *before, base, cand = [run_at(level, dice, f"run {place}") for place, level in enumerate(levels)]
            late = run_at(levels[-1], dice, "slower", SLOWED)
            same.append(compare([base], [cand], history=history_of(before)))
            slower.append(compare([base], [late], history=history_of(before)))
    return {
        "called": share_of([calls(item) for item in same]), "differs": share_of([says_differs(item) for item in same]),
        "p50_beyond_chance": share_of([chance_of_p50(item) <= ALPHA for item in same]),
        "finds": share_of([p50_of(item).verdict == "slower" for item in slower]),
    }  # fmt: skip


@contextmanager
def few_replicates() -> Iterator[None]:
    """Comparing takes nothing from the bootstrap, which is most of an estimate."""
    kept = estimate.REPLICATES, latency.REPLICATES
    estimate.REPLICATES = latency.REPLICATES = 8
    try:
        yield
    finally:
        estimate.REPLICATES, latency.REPLICATES = kept


def calls(made: Comparison) -> bool:
    """Whether a change of what was measured is called, for any figure."""
    return any(row.verdict not in (*UNCHANGED, "differs") for row in made.rows)


def says_differs(made: Comparison) -> bool:
    """Whether two runs are said to differ, and no more than that."""
    return any(row.verdict == "differs" for row in made.rows)


def p50_of(made: Comparison):
    return next(row for row in made.rows if row.metric == "response_p50")


def chance_of_p50(made: Comparison) -> float:
    """How probable the change of p50 is by chance."""
    found = p50_of(made).p
    return 1.0 if found is None else found


def study_of_runs(trials: int, seed: int = 1, histories: tuple[int, ...] = HISTORIES, workers: int = 1) -> dict:
    """Both parts of a comparison of two runs, by machine and number of earlier runs."""
    tasks = [(name, earlier, trials, seed) for name in MACHINES for earlier in histories]
    found: dict = {name: {} for name in MACHINES}
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        for (name, earlier, *_), shares in zip(tasks, (pool.map if pool else map)(compared_of, tasks), strict=True):
            found[name][str(earlier)] = shares
    return {"trials": trials, "seed": seed, "rounds": RUN_ROUNDS, "alpha": ALPHA, "histories": list(histories), "slowed": SLOWED,
            "machines": {name: said for name, (said, _) in MACHINES.items()}, "shares": found}  # fmt: skip


def page_of_runs(made: dict) -> str:
    """That study as a part of the page."""
    lines = [
        "## Two runs of different hours", "",
        f"{made['trials']} pairs of runs a row, {made['rounds']} rounds each, the same thing measured twice: its p50, p99 and "
        f"throughput through the real comparison, which states that a change is called in at most {made['alpha']:.0%}. Earlier "
        "runs of the same thing show what differs from run to run. Without them nothing is called a change: the verdict is "
        "\"differs\", of these two runs only, and no probability is stated; so often it was called a change before. A figure is "
        "known to about ± 3 points.", "",
        "| machine | earlier runs | a change is called | said to differ | p50 beyond chance at 5 % | +10 % at p50 found |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, said in made["machines"].items():
        for place, earlier in enumerate(made["histories"]):
            shares = made["shares"][name][str(earlier)]
            told = " | ".join(f"{shares[key]['share']:.1%}" for key in ("called", "differs", "p50_beyond_chance", "finds"))
            lines.append(f"| {f'{name}: {said}' if not place else ''} | {earlier or 'none'} | {told} |")
    return "\n".join([
        *lines, "",
        "Three earlier runs are enough to be right and too few to see much. Runs of successive hours do not show what a day",
        "differs by: the comparison warns where its two runs lie farther apart than the earlier ones together.", "",
    ])  # fmt: skip


def holds(estimate: Estimate, truth: float) -> bool | None:
    """Whether the interval has the truth in it; None where there is no interval."""
    return None if estimate.low is None or estimate.high is None else bool(estimate.low <= truth <= estimate.high)


def study(trials: int, seed: int = 1, rounds: tuple[int, ...] = ROUNDS, workers: int = 1) -> dict:
    """Coverage by world, metric and number of rounds."""
    found: dict = {name: {metric: {} for metric in METRICS} for name in WORLDS}
    tasks = [(name, count, trials, seed) for name in WORLDS for count in rounds]
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        for (name, count, *_), shares in zip(tasks, (pool.map if pool else map)(coverage_of, tasks), strict=True):
            for metric, share in shares.items():
                found[name][metric][str(count)] = share
    return {"farwrite": __version__, "trials": trials, "seed": seed, "rounds": list(rounds), "confidence": 0.95,
            "worlds": {name: said for name, (said, _) in WORLDS.items()}, "coverage": found}  # fmt: skip


def coverage_of(task: tuple[str, int, int, int]) -> dict[str, dict | None]:
    """One world and number of rounds: the share of runs whose interval holds the truth, by metric."""
    name, rounds, trials, seed = task
    world = WORLDS[name][1]
    truth = truth_of(world, seed)
    dice = np.random.default_rng([seed, 2, list(WORLDS).index(name), rounds])
    factors = np.exp(world(dice, trials, rounds))
    made = [estimates_of(factors[trial], dice, trial) for trial in range(trials)]
    return {metric: share_of([holds(item[metric], truth.of(metric)) for item in made]) for metric in METRICS}


def share_of(held: list[bool | None]) -> dict | None:
    """How many of the intervals held the truth, with the exact binomial interval (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest

    known = [item for item in held if item is not None]
    if not known:
        return None
    interval = binomtest(sum(known), len(known)).proportion_ci(0.95)
    return {"held": sum(known), "of": len(known), "share": round(sum(known) / len(known), 4),
            "low": round(float(interval.low), 4), "high": round(float(interval.high), 4)}  # fmt: skip


def page(made: dict) -> str:
    """The study as a page."""
    lines = [
        "# Coverage of intervals", "",
        f"Made by `make coverage-study`, farwrite {made['farwrite']}, seed {made['seed']}: {made['trials']} runs a row, each of "
        f"{len(MILES)} distances and {WRITES} writes a round, through the real estimators. A figure is the share of the stated "
        "95 % intervals that hold what infinitely many rounds would give; it is itself known to about ± 3 points (the file "
        "`coverage.json` has the exact binomial intervals). –: no interval is given for so few rounds. Cells of fewer than 3 "  # noqa: RUF001
        "rounds carry no verdict.", "",
    ]  # fmt: skip
    for name, said in made["worlds"].items():
        lines += [f"## {name}: {said}", "", f"| | {' | '.join(f'{count} rounds' for count in made['rounds'])} |",
                  f"|---|{'---:|' * len(made['rounds'])}"]  # fmt: skip
        for metric, by_rounds in made["coverage"][name].items():
            shares = [by_rounds[str(count)] for count in made["rounds"]]
            told = " | ".join("–" if item is None else f"{item['share']:.1%}" for item in shares)  # noqa: RUF001
            lines.append(f"| {metric} | {told} |")
        lines.append("")
    lines += [
        "Intervals are of the hour in which the run was made. Where rounds drift, their neighbours are alike and so are worth",
        "fewer rounds than there are; an interval then covers less than it states, and no analysis of one run can know what the",
        "next hour is like. The same holds of a rare slow round that the run did not happen to meet: a p99 that lies in one",
        "round of 20 is not seen by 5 rounds. Compare arms that were measured beside each other, in pairs: drift is then in",
        "both.", "",
    ]  # fmt: skip
    return "\n".join(lines) + ("\n" + page_of_runs(made["two_runs"]) if "two_runs" in made else "")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--trials", type=int, default=300)
    words.add_argument("--only", choices=("intervals", "runs"), help="make one part and keep the other's results")
    words.add_argument("--out", type=Path, default=ROOT / "results")
    asked = words.parse_args()
    workers = os.cpu_count() or 1
    kept = json.loads((asked.out / "coverage.json").read_bytes()) if asked.only else {}
    made = kept if asked.only == "runs" else study(asked.trials, workers=workers)
    two_runs = kept.get("two_runs") if asked.only == "intervals" else study_of_runs(asked.trials, workers=workers)
    made |= {"two_runs": two_runs} if two_runs else {}
    (asked.out / "coverage.json").write_text(json.dumps(made, indent=1) + "\n")
    (asked.out / "coverage.md").write_text(page(made))
    print(page(made))


if __name__ == "__main__":
    main()
