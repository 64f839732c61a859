"""What withholds verdicts on latency: a machine that had too much else to do, and a generator that was late. And what they leave.

Nothing else is withheld: lost writes are counted on a busy machine too, lateness withholds only verdicts that it can turn, and
a closed loop has none.
"""

from __future__ import annotations

from io import StringIO

import msgspec
import numpy as np
import pytest
from rich.console import Console

from farwrite.analysis.analyse import analyse
from farwrite.analysis.change import compare
from farwrite.analysis.estimate import Draws
from farwrite.analysis.latency import Pool
from farwrite.analysis.sample import decode, rank
from farwrite.base.histogram import Histogram
from farwrite.base.reasons import joined
from farwrite.compare.baseline import reasons_against
from farwrite.compare.figures import result_set_of
from farwrite.gate.budget import parse
from farwrite.gate.gate import gate
from farwrite.report.terminal import show
from farwrite.testing.budget import check
from make_figures import as_reasons, measured, result_set
from make_recording import LARGE, SMALL, analysed, made_report

CLOSED = ("run.rounds=5", "run.round=400 ms", "drill.kills=2")
OPEN = ("run.rounds=5", "run.round=400 ms", "drill.kills=0", "distance.miles=[0, 20, 150]")
BUSY = {"foreign_share": 0.52, "own_share": 0.4, "run_delay_ratio": 1.3}


def analysis_of(text: str = SMALL, changes: tuple[str, ...] = CLOSED, **truth):
    return analysed(text=text, changes=changes, **truth)[1]


def cell_of(analysis, cell: str):
    return next(item for item in analysis.cells if item.cell == cell)


def claim_of(analysis, name: str):
    return next(item for item in analysis.claims if item.id == name)


def sheet_made(text: str = SMALL, changes: tuple[str, ...] = CLOSED, **truth):
    report = made_report(text=text, changes=changes, **truth)
    return result_set_of(report, report.analysis, "made-up")


def ruled(result_set, metric: str, limit: str, where: str = ""):
    text = f'[[budget]]\nmetric = "{metric}"\n{limit}\n' + (f"where = {where}\n" if where else "")
    found = gate(result_set, parse(f'title = "made up"\n{text}', "b.toml"))
    assert len(found.verdicts) == 1
    return found.verdicts[0]


AT_20 = '{ protocol = "C", miles = [20], name = "write" }'
PACED = '{ protocol = "C", miles = [20], name = "paced" }'


# Host noise


@pytest.mark.parametrize("a_ns", [300_000.0, 2_500_000.0], ids=["it would pass", "it would fail"])
@pytest.mark.parametrize(
    ("truth", "said"),
    [
        (BUSY, "other programs used 52% of the processors, more than 25%"),
        ({"foreign_share": 0.2, "own_share": 0.2, "run_delay_ratio": 0.6}, "waited 30% of their time for processors that other"),
        ({"steal": 0.08}, "the host took 8.0% of the processors, more than 5%"),
    ],
)
def test_a_busy_machine_withholds_every_verdict_on_a_latency(a_ns, truth, said):
    analysis = analysis_of(a_ns=a_ns, **truth)
    claim = claim_of(analysis, "C1")
    assert claim.verdict == "unknown" and said in claim.sentence and "host-noise: " in claim.sentence
    details = " ".join(claim_of(analysis, "C2").details)
    assert said in details and "within" not in details and "beyond" not in details
    decided = ruled(sheet_made(a_ns=a_ns, **truth), "response_p99", 'at_most = "2 ms"', AT_20)
    assert decided.verdict == "unknown" and said in decided.sentence


def test_a_busy_machine_withholds_nothing_on_lost_writes_damage_and_availability():
    quiet, busy = analysis_of(), analysis_of(**BUSY)
    assert claim_of(busy, "C2").verdict == claim_of(quiet, "C2").verdict == "fail"  # Nothing is acknowledged during a cut.
    assert claim_of(busy, "C2").sentence == claim_of(quiet, "C2").sentence
    available = analysis_of(**BUSY, completed_during_cut_c=9)
    assert claim_of(available, "C2").verdict == "pass"
    assert claim_of(analysis_of(**BUSY, completed_during_cut_c=9, lost_writes_c=2), "C2").verdict == "fail"
    for lost, verdict in ((0, "pass"), (3, "fail")):
        made = sheet_made(**BUSY, lost_in_rounds=lost)
        assert ruled(made, "lost_writes", "equals = 0", AT_20).verdict == verdict


@pytest.mark.parametrize(
    "truth",
    [
        {"foreign_share": 0.16, "own_share": 0.3, "run_delay_ratio": 0.14},  # The worst quiet rounds of protocol C,
        {"foreign_share": 0.058, "own_share": 0.9, "run_delay_ratio": 0.82},  # and of A: near, far and link wait for each other.
        {"foreign_share": 0.0, "own_share": 0.0, "run_delay_ratio": 0.0},
        {},  # A recording from before it was noted.
    ],
)
def test_two_processors_with_nothing_else_to_do_are_no_host_noise(truth):
    analysis = analysis_of(**truth)
    assert not any(cell.host_noise for cell in analysis.cells)
    assert claim_of(analysis, "C1").verdict == "pass"


def test_host_noise_of_rare_writes_is_a_share_of_the_time_they_are_under_way():
    """A round with ten writes of 0.6 ms in 400 ms: they waited 3 ms for others, little of the round and half of them."""
    truth = {"foreign_share": 0.2, "own_share": 0.0, "run_delay_ratio": 0.0075}
    few = cell_of(analysis_of(LARGE, OPEN, writes=10, **truth), "paced-C-20")
    many = cell_of(analysis_of(LARGE, OPEN, writes=600, **truth), "paced-C-20")
    assert "waited" in str(few.host_noise[0]) and many.host_noise == []


def test_no_line_is_fitted_through_busy_cells_without_saying_so():
    recording, _ = analysed(text=SMALL, changes=CLOSED)
    noise = analysed(text=SMALL, changes=CLOSED, **BUSY)[0].rounds[0].noise
    rounds = [msgspec.structs.replace(item, noise=noise) if item.cell == "write-C-60" else item for item in recording.rounds]
    one = analyse(msgspec.structs.replace(recording, rounds=rounds))
    assert [fit.left_out for fit in one.fits if fit.protocol == "C"] == [["write-C-60"]] * 2
    assert claim_of(one, "C1").verdict == "pass"
    everywhere = analysis_of(**BUSY)
    assert claim_of(everywhere, "C3").verdict == "unknown"
    assert "no verdict may rest on" in claim_of(everywhere, "C1").sentence.partition("2 ms is spent")[2]


def test_what_two_arms_measured_side_by_side_on_a_busy_machine_is_compared():
    noisy = as_reasons(["host-noise: a neighbour"])

    def arm(name, value):
        item = measured("response_p50", [value, 1.01 * value, 0.99 * value, value, value])
        return result_set(msgspec.structs.replace(item, host_noise=noisy), arm=name)

    text = 'title = "made up"\n[[budget]]\nmetric = "response_p50"\nnot_worse_by = "5 %"\n'
    base, cand = arm("base", 1e6), arm("cand", 1.5e6)
    assert compare([base], [cand]).rows[0].verdict == "slower"
    assert gate(cand, parse(text, "b.toml"), base).verdict == "fail"
    alone = [msgspec.structs.replace(item, pairing=None) for item in (base, cand)]
    row = compare([alone[0]], [alone[1]]).rows[0]
    assert (row.verdict, row.sentence) == ("unresolved", "baseline: host-noise: a neighbour")
    assert gate(alone[1], parse(text, "b.toml"), alone[0]).verdict == "unknown"


def test_a_report_of_a_busy_machine_says_so_once_at_the_top_and_beside_its_cells():
    report = made_report(text=SMALL, changes=CLOSED, **BUSY)
    assert sum(str(text).startswith("host-noise: ") for text in report.analysis.warnings) == 1
    out = StringIO()
    show(report, report.analysis, Console(file=out, width=200), full=True)
    assert "No verdict on its latency: host-noise: other programs used 52%" in out.getvalue()
    assert "✔ within" not in out.getvalue() and "✘ not even" not in out.getvalue()
    assert any("host-noise" in text for text in reasons_against(report.recording, report.analysis))


# A late generator


def test_a_closed_loop_has_no_instants_to_miss():
    """Its generator was 0.14 ms late of a p99 of 0.9 ms, and C1 was undecided."""
    analysis = analysis_of(late_ns=140_000.0)
    assert claim_of(analysis, "C1").verdict == "pass"
    for cell in analysis.cells:
        assert cell.late_ns_p99.value > 140_000 and cell.withheld == []
        assert cell.response_ns_p99.value is not None and cell.response_ns_p99.late_ns == 0
    assert all(fit.left_out == [] and "verdict" not in joined(fit.k.warnings) for fit in analysis.fits)


LATE = {"late_ns": 150_000.0}  # At p99 twice as much; of a p99 of some 0.7 ms.


@pytest.mark.parametrize(
    ("limit", "verdict"), [("2 ms", "pass"), ("0.6 ms", "unknown"), ("0.2 ms", "fail")], ids=["kept", "turned", "broken anyway"]
)
def test_lateness_withholds_a_verdict_only_where_it_can_turn_it(limit, verdict):
    made = sheet_made(LARGE, OPEN, **LATE)
    decided = ruled(made, "response_p99", f'at_most = "{limit}"', PACED)
    assert decided.verdict == verdict, decided.sentence
    assert ("own lateness; without it the verdict may turn" in decided.sentence) == (verdict == "unknown")
    in_a_test = check("p99", made, at_most=limit, where={"metric": "response_p99", "protocol": "C", "miles": 20, "name": "paced"})
    assert in_a_test.verdict == verdict
    # A generator in time: the same limits, and every one is decided.
    punctual = sheet_made(LARGE, OPEN, late_ns=400.0)
    assert ruled(punctual, "response_p99", f'at_most = "{limit}"', PACED).verdict == ("pass" if verdict == "pass" else "fail")


def test_times_from_the_issue_hold_no_lateness_and_rates_none_either():
    made = sheet_made(LARGE, OPEN, **LATE)
    late = {item.metric for item in made.figures if item.estimate.late_ns}
    assert {"response_p99", "response_p50"} <= late <= {"response_p50", "response_p99", "response_p999", "wait_p99"}
    assert ruled(made, "service_p50", 'at_most = "0.1 ms"', PACED).verdict == "fail"
    assert ruled(made, "throughput", 'at_least = "5000 /s"', PACED).verdict == "fail"


def test_where_no_limit_is_named_a_large_share_of_lateness_withholds():
    """A comparison, a fit, a baseline."""
    late, punctual = sheet_made(LARGE, OPEN, **LATE), sheet_made(LARGE, OPEN, late_ns=400.0)
    rows = {(row.metric, row.labels["name"]): row for row in compare([late], [late]).rows if row.labels.get("miles") == 20}
    assert "baseline: up to" in rows["response_p99", "paced"].sentence
    assert "lateness" not in rows["response_p50", "write"].sentence
    assert not any("lateness" in row.sentence for row in compare([punctual], [punctual]).rows)
    report = made_report(text=LARGE, changes=OPEN, **LATE)
    said = list(reasons_against(report.recording, report.analysis))
    assert any("paced-C-20" in text and "lateness" in text for text in said) and not any("write-C-20" in text for text in said)
    assert any("response p99: up to" in str(text) for text in cell_of(report.analysis, "paced-C-20").warnings)


@pytest.mark.parametrize("seed", range(40))
def test_no_pairing_of_times_and_lateness_hides_more_than_is_said(seed):
    dice = np.random.default_rng(seed)
    count, others, q = int(dice.integers(400, 3000)), int(dice.integers(0, 500)), float(dice.choice([0.5, 0.99]))
    own = np.abs(dice.normal(1e6, 2e5, count)).astype(np.int64) + 1
    late = np.where(dice.random(count) < 0.02, dice.exponential(3e6, count), dice.exponential(2e4, count)).astype(np.int64)
    order = {0: slice(None), 1: np.argsort(own), 2: np.argsort(-own)}[seed % 3]  # Alike by chance, together, against each other.
    own = own[order]
    late = np.sort(late) if seed % 3 else late
    seen = own + late
    more = dice.exponential(1e5, others).astype(np.int64)  # Of other I/Os of the cell.
    draws = Draws(1, 1)
    times = Pool("times", [0], [decode(Histogram.of(seen).encode())], draws)
    lateness = Pool("late", [0], [decode(Histogram.of(np.concatenate([late, more])).encode())], draws)
    hidden_ns = times.quantile(q) - np.sort(own)[rank(count, q) - 1]
    assert times.lateness_in(lateness, q) >= hidden_ns - 0.003 * times.quantile(q)  # Slots are a thousandth wide.
    assert times.lateness_in(lateness, q) <= times.quantile(q)


def test_times_without_lateness_have_none_in_them():
    draws = Draws(1, 1)
    times = Pool("times", [0], [decode(Histogram.of(np.arange(1, 1000) * 1000).encode())], draws)
    nothing = Pool("late", [0], [decode(Histogram.of(np.zeros(0, np.int64)).encode())], draws)
    assert times.lateness_in(nothing, 0.99) == 0 and nothing.lateness_in(times, 0.5) == 0
