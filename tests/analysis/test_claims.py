"""Verdicts follow their rules, and every sentence carries its numbers."""

import msgspec
import pytest

from farwrite.analysis import claims
from farwrite.analysis.result import DrillResult, Estimate
from farwrite.base import reasons
from make_recording import analysed

QUICK = ("run.round=400 ms", "run.survey_echoes=20", "distance.miles=[0, 20, 100, 150]", "drill.kills=3")


def claims_of(changes=QUICK, **truth):
    _, analysis = analysed(changes=changes, writes=truth.pop("writes", 200), **truth)
    return {claim.id: claim for claim in analysis.claims}


def test_c1_holds_when_the_whole_interval_is_below_2_ms():
    claim = claims_of()["C1"]
    assert claim.verdict == "pass"
    assert claim.sentence.startswith("C1 holds at 20 miles: p99 0.6")
    assert " of 2 ms; 2 ms is spent at 10" in claim.sentence
    assert any("0.315 ms" in detail and "2.364 ms" in detail for detail in claim.details)
    assert sum("2.1 (rule of thumb) " in detail for detail in claim.details) == 2


def test_c1_fails_when_the_whole_interval_is_above_2_ms():
    claim = claims_of(a_ns=2_500_000)["C1"]
    assert claim.verdict == "fail"
    assert "2 ms is spent before the first mile" in claim.sentence


def test_c1_is_undecided_when_2_ms_lie_inside_the_interval():
    claim = claims_of(a_ns=1_280_000, drift_ratio=0.1)["C1"]
    assert claim.verdict == "unknown"
    assert "has 2 ms inside" in claim.sentence


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ({"link_off_ns": 120_000}, "the link was not what it claimed"),
        ({"foreign_share": 0.5}, "host-noise: other programs used 50%"),
        ({"changes": (*QUICK, "run.rounds=1"), "writes": 500}, "one round only"),
    ],
)
def test_c1_is_undecided_on_a_cell_that_verdicts_may_not_rest_on(truth, reason):
    claim = claims_of(**truth)["C1"]
    assert claim.verdict == "unknown"
    assert "no verdict may rest on it" in claim.sentence
    assert reason in claim.sentence


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ({"changes": (*QUICK, "distance.miles=[0, 60, 100, 150]")}, "was not measured at 20 miles"),
        ({"changes": (*QUICK, "cell.write.queue_depth=8")}, "was not measured at 20 miles"),
        ({"always_void": ("write-C-20",)}, "not one good round: the link before the round was +412 us off"),
        ({"writes": 50}, "p99 needs n >= 368"),
    ],
)
def test_c1_is_undecided_when_it_was_not_measured_and_says_why(truth, reason):
    claim = claims_of(**truth)["C1"]
    assert claim.verdict == "unknown"
    assert reason in claim.sentence


def test_c2_is_refuted_by_a_cut_that_stops_every_write():
    claim = claims_of()["C2"]
    assert claim.verdict == "fail"
    holds = " ".join(item for item in claim.details if item.startswith("holds: "))
    assert "100 % available is refuted" in claim.sentence
    assert "at 150 miles a write takes p50 2.6" in holds
    assert "0 of 2,703 acknowledged writes lost in 3 kills at 150 miles" in holds
    assert "below 0.63 at 95 %" in holds


def test_c2_is_refuted_by_a_lost_write():
    claim = claims_of(lost_writes_c=1, completed_during_cut_c=500)["C2"]
    assert claim.verdict == "fail"
    assert "3 of 2,703 acknowledged writes lost in 3 of 3 kills" in claim.sentence


def test_c2_is_refuted_by_a_write_that_was_missing_after_a_round():
    claim = claims_of(lost_in_rounds=2, completed_during_cut_c=500)["C2"]
    assert claim.verdict == "fail"
    assert "acknowledged writes lost or damaged in measured rounds" in claim.sentence


def test_c2_holds_only_when_all_three_parts_do():
    assert claims_of(completed_during_cut_c=500)["C2"].verdict == "pass"


def test_c2_is_undecided_without_drills():
    claim = claims_of(changes=(*QUICK, "drill.kills=0"))["C2"]
    assert claim.verdict == "unknown"
    assert "no kill was drilled" in claim.sentence
    assert "no cut of the link was drilled" in claim.sentence


def test_c3_holds_with_a_small_loss_at_any_distance():
    claim = claims_of()["C3"]
    assert claim.verdict == "pass"
    assert "does not depend on distance" in claim.sentence
    assert "at worst 42 writes (168 KiB), the oldest 2.10 ms old" in claim.sentence
    assert any(detail.startswith("write: lag p99 ") for detail in claim.details)
    assert any("Mbit/s on average" in detail for detail in claim.details)


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (-3.0, 3.0, "unknown"), (-0.02, 0.04, "pass"), (0.01, 0.04, "pass"), (0.01, 0.2, "unknown"), (0.06, 0.2, "fail"),
    (-0.4, -0.2, "unknown"), (None, None, "unknown"),
])  # fmt: skip
def test_that_distance_has_no_part_is_earned_by_the_whole_interval(low, high, verdict):
    fit = next(item for item in analysed(changes=QUICK, writes=200)[1].fits if (item.protocol, item.quantile) == ("A", 0.5))
    k = msgspec.structs.replace(fit.k, value=0.5 * ((low or 0.0) + (high or 0.0)), low=low, high=high)
    part = claims.any_distance([msgspec.structs.replace(fit, k=k)])
    assert part.verdict == verdict
    assert low is None or "0.05 round trips" in part.sentence


@pytest.mark.parametrize("rounds", [1, 2])
def test_no_verdict_rests_on_fewer_than_three_rounds(rounds):
    said = claims_of(changes=(*QUICK, f"run.rounds={rounds}"), writes=500)
    assert said["C1"].verdict == "unknown" and "no verdict may rest on it" in said["C1"].sentence
    assert said["C3"].verdict == "unknown"


def test_c3_is_undecided_when_rounds_or_cells_are_too_few_to_rest_on():
    for changes, truth in (((*QUICK, "run.rounds=1"), {}), (QUICK, {"foreign_share": 0.5})):
        claim = claims_of(changes=changes, **truth)["C3"]
        assert claim.verdict == "unknown"
        assert claim.sentence.startswith("C3 is undecided: whether its latency depends on distance is unknown: k ")
        assert "no verdict may rest on" in claim.sentence


def test_c3_fails_when_the_recovery_point_is_not_small():
    claim = claims_of(lost_writes_a=50_000)["C3"]
    assert claim.verdict == "fail"
    assert "more than what we call small" in claim.sentence


def test_c3_bounds_what_kills_without_a_loss_leave_open():
    claim = claims_of(lost_writes_a=0)["C3"]
    assert claim.verdict == "pass"
    assert "below 0.63 at 95 %" in claim.sentence


@pytest.mark.parametrize("truth", [{}, {"lost_writes_a": 0}, {"completed_during_cut_c": 500}])
def test_a_measured_recovery_point_is_never_called_zero(truth):
    for claim in claims_of(**truth).values():
        assert not any("zero" in text for text in [claim.sentence, *claim.details])


@pytest.mark.parametrize(("link", "said"), [("relay", True), ("netem", False)])
def test_a_link_of_streams_is_confessed_in_every_verdict(link, said):
    assert {claim.sentence.endswith(" (stream-level)") for claim in claims_of(link=link).values()} == {said}


def test_memory_is_confessed_with_every_verdict():
    for claim in claims_of(durability="memory").values():
        assert "journals were in memory: no disk is part of these figures" in claim.details


def test_nothing_is_judged_when_the_links_error_is_more_than_5_percent_of_the_limit():
    recording, analysis = analysed(changes=QUICK, writes=200)
    cells = {cell.cell: cell for cell in analysis.cells}
    good = cells["write-C-20"]

    def verdict_with(off_ns):
        rtt = msgspec.structs.replace(good.rtt_ns_p50, value=good.asked_rtt_ns + off_ns)
        cell = msgspec.structs.replace(good, rtt_ns_p50=rtt)
        return claims.claim_c1(recording, [cell], analysis.miles)

    for off_ns in (99_000, -99_000):
        assert verdict_with(off_ns).verdict == "pass"
    for off_ns in (101_000, -101_000):
        refused = verdict_with(off_ns)
        assert refused.verdict == "unknown"
        assert "the link's error of 0.101 ms is more than 5% of the 2.00 ms it is judged against" in refused.sentence


def test_a_recovery_point_over_a_link_of_streams_is_not_judged():
    claim = claims_of(link="relay", lost_writes_a=0)["C3"]
    assert claim.verdict == "unknown"
    assert "its recovery point is not judged" in claim.sentence


# The parts, each by itself


def a_cell(**changes):
    """C at 20 miles, of which a part is another."""
    cell = next(item for item in analysed(changes=QUICK, writes=200)[1].cells if item.cell == "write-C-20")
    return msgspec.structs.replace(cell, **changes)


@pytest.mark.parametrize(("changes", "stands"), [
    ({}, True), ({"miles": 20.5}, True), ({"miles": 19.5}, True), ({"miles": 20.51}, False), ({"miles": 19.49}, False),
    ({"protocol": "B"}, False), ({"queue_depth": 2}, False), ({"arrival": "poisson"}, False), ({"size_bytes": 8192}, False),
], ids=str)  # fmt: skip
def test_only_one_4_kib_write_at_a_time_within_half_a_mile_stands_for_a_claims_distance(changes, stands):
    assert (claims.the_cell([a_cell(**changes)], "C", 20.0) is not None) == stands


def test_of_several_cells_the_workload_called_write_stands_for_a_claim_then_the_nearest():
    near, far, other = a_cell(miles=20.1), a_cell(miles=20.2), a_cell(name="other", miles=20.0)
    assert claims.the_cell([other, far, near], "C", 20.0) is near
    assert claims.the_cell([a_cell(miles=19.6), near, far], "C", 20.0) is near
    assert claims.the_cell([other], "C", 20.0) is other and claims.the_cell([], "C", 20.0) is None


def test_a_claim_tells_the_miles_of_its_own_workload_protocol_and_budget_over_the_straight_line():
    recording, analysis = analysed(changes=QUICK, writes=200)
    others = [msgspec.structs.replace(item, name="other") for item in analysis.miles]
    for miles in (analysis.miles, [*reversed(analysis.miles)], [*others, *analysis.miles]):
        mine = claims.spent(miles, a_cell(), 2e6)
        assert {(item.name, item.protocol, item.budget_ns) for item in mine} == {("write", "C", 2e6)} and len(mine) == 6
        assert {item.name for item in claims.spent(miles, None, 2e6)} == {"write"}
        straight = next(item for item in mine if (item.quantile, item.route_factor) == (0.99, 1.0))
        found = claims.claim_c1(recording, analysis.cells, miles)
        assert found.sentence.endswith(f"; 2 ms {claims.spent_text(straight)}")
        assert found.why.startswith("p99 ") and found.why.endswith(f"of 2 ms; 2 ms {claims.spent_text(straight)}")
    assert claims.claim_c1(recording, analysis.cells, others).sentence.endswith(" of 2 ms")
    assert claims.physics_text() in claims.claim_c1(recording, analysis.cells, []).details


def test_why_a_claim_is_undecided_stands_without_its_name_too():
    recording, _ = analysed(changes=QUICK, writes=200)
    wide = a_cell(response_ns_p99=msgspec.structs.replace(a_cell().response_ns_p99, high=3e6))
    found = claims.claim_c1(recording, [wide], [])
    assert found.verdict == "unknown" and "has 2 ms inside" in found.why
    assert [one.code for one in found.reasons] == ["limit_inside"]
    void = a_cell(withheld=[reasons.unsound()])
    found = claims.claim_c1(recording, [void], [])
    assert found.why == str(reasons.unsound()) and found.reasons == [reasons.unsound()]
    none = a_cell(response_ns_p99=Estimate(value=None, warnings=[reasons.needs("p99", 368, 7)]))
    found = claims.claim_c1(recording, [none], [])
    assert found.verdict == "unknown" and found.reasons == [reasons.needs("p99", 368, 7)] and "p99 needs" in found.why
    nowhere = claims.claim_c1(recording, [], [])
    assert nowhere.verdict == "unknown" and nowhere.reasons == [] and "was not measured at 20 miles" in nowhere.why


@pytest.mark.parametrize(("link", "named"), [("relay", True), ("netem", False)])
def test_a_link_of_streams_is_named_in_why_as_well(link, named):
    recording, analysis = analysed(changes=QUICK, writes=200)
    recording = msgspec.structs.replace(recording, lab=msgspec.structs.replace(recording.lab, link=link))
    found = claims.claims_of(recording, analysis.cells, analysis.fits, analysis.miles, analysis.drills)
    assert [claim.id for claim in found] == ["C1", "C2", "C3"]
    for claim in found:
        assert claim.why.endswith(" (stream-level)") == claim.sentence.endswith(" (stream-level)") == named
    assert found[0].verdict == "pass" and found[2].verdict == ("unknown" if named else "pass")


def test_a_claims_details_are_of_its_own_cells():
    recording, analysis = analysed(changes=QUICK, writes=200)
    at_150 = next(item for item in analysis.cells if item.cell == "write-C-150")
    limits = claims.limits_text(at_150)
    assert limits in claims.claim_c2(recording, [at_150], []).details
    for cells in ([msgspec.structs.replace(at_150, response_ns_p99=Estimate(value=None))], []):
        assert not any("limits that products state" in one for one in claims.claim_c2(recording, cells, []).details)
    mine = [item for item in analysis.cells if item.protocol == "A"]
    lag, width = claims.lag_text(mine), claims.bandwidth_text(mine[-1])
    assert claims.claim_c3(recording, [*reversed(analysis.cells)], [], []).details[-2:] == [lag, width]
    others = [item for item in analysis.cells if item.protocol != "A"]
    assert not any("lag p99" in one or "Mbit/s" in one for one in claims.claim_c3(recording, others, [], []).details)
    void = [msgspec.structs.replace(item, rounds_ok=0) for item in mine[:1]] + mine[1:]
    assert claims.lag_text(mine[1:]) in claims.claim_c3(recording, void, [], []).details
    none = [msgspec.structs.replace(mine[0], lag_ns_p99=None, goodput_bytes_per_s=Estimate(value=None))]
    assert not any("lag p99" in one or "Mbit/s" in one for one in claims.claim_c3(recording, none, [], []).details)


@pytest.mark.parametrize(("verdicts", "expected"), [
    ("pass pass", "pass"), ("pass fail", "fail"), ("unknown fail", "fail"), ("pass unknown", "unknown"), ("unknown", "unknown"),
])  # fmt: skip
def test_a_claim_is_what_its_worst_part_is_and_says_that_one_first(verdicts, expected):
    parts = [claims.Part(verdict, f"part {index}", (reasons.few_rounds(index),))
             for index, verdict in enumerate(verdicts.split())]  # fmt: skip
    found = claims.combined("C2", parts, ["detail"])
    deciding = [part for part in parts if part.verdict == expected]
    assert found.verdict == expected and found.why == "; ".join(part.sentence for part in deciding)
    assert found.sentence.endswith(f": {found.why}") and found.reasons == [one for part in deciding for one in part.reasons]
    others = [part for part in parts if part.verdict != expected]
    assert found.details == [*(f"{claims.ALSO[part.verdict]}: {part.sentence}" for part in others), "detail"]


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("verdict", ["pass", "fail", "unknown"])
def test_half_a_run_may_refute_a_part_and_cannot_prove_it(verdict, interrupted):
    recording = msgspec.structs.replace(analysed(changes=QUICK, writes=200)[0], interrupted=interrupted)
    found = claims.unless_interrupted(recording, claims.Part(verdict, "so it is"))
    turned = verdict == "pass" and interrupted
    assert found.verdict == ("unknown" if turned else verdict) and found.sentence.startswith("so it is")
    assert [one.code for one in found.reasons] == (["interrupted"] if turned else [])


def test_c2_works_where_the_median_at_150_miles_is_known_and_not_withheld():
    nothing = Estimate(value=None, warnings=[reasons.needs("p50", 6, 1)])
    assert claims.works(a_cell()).verdict == "pass"
    assert claims.works(a_cell(response_ns_p50=nothing)).verdict == "unknown" and claims.works(None).verdict == "unknown"
    withheld = claims.works(a_cell(withheld=[reasons.unsound()]))
    assert withheld.verdict == "unknown" and withheld.reasons == (reasons.unsound(),)
    assert claims.works(a_cell(host_noise=[reasons.unsound()])).verdict == "pass"  # The claim promises no latency.
    assert "p99 unknown: p50 needs" in claims.works(a_cell(response_ns_p99=nothing)).sentence


@pytest.mark.parametrize("durability", ["memory", "direct"])
@pytest.mark.parametrize("verdict", ["pass", "fail", "unknown"])
def test_that_nothing_was_lost_in_memory_is_said_to_be_of_killed_processes(verdict, durability):
    recording = analysed(changes=QUICK, writes=200)[0]
    recording = msgspec.structs.replace(recording, lab=msgspec.structs.replace(recording.lab, durability=durability))
    part = claims.Part(verdict, "0 lost")
    found = claims.on_what(recording, part)
    assert bool(recording.lab.not_durable) == (durability == "memory") and found.verdict == verdict
    assert found.sentence.endswith("so this is of killed processes and not of a loss of power") == (found is not part)
    assert (found is part) == (verdict != "pass" or durability != "memory")


def drilled(kind="kill", protocol="C", count=3, **changes):
    """Drills of one kind, of which nothing was lost."""
    known = {
        "miles": 150.0, "drills_with_loss": 0, "loss_probability_high": 0.63, "lost_writes_max": 0, "lost_bytes_max": 0,
        "recovery_point_ns_max": None, "completed_during_cut_max": None, "recovery_time_ns_max": None, "completed": 900,
    }  # fmt: skip
    return DrillResult(kind=kind, protocol=protocol, count=count, **{**known, **changes})


@pytest.mark.parametrize(("drills", "verdict"), [
    ([], "unknown"), ([drilled()], "pass"), ([drilled(count=0)], "unknown"), ([drilled(count=0), drilled(count=1)], "pass"),
    ([drilled(lost=1)], "fail"), ([drilled(damaged=1)], "fail"), ([drilled(uncounted_lost=1)], "fail"),
    ([drilled(count=0, uncounted_damaged=1)], "fail"), ([drilled(protocol="A", lost=9)], "unknown"),
    ([drilled(lost=1, damaged=1)], "fail"), ([drilled(), drilled("cut", lost=1, damaged=1)], "fail"),
    ([drilled("cut", lost=1)], "fail"), ([drilled(), drilled("cut", uncounted_damaged=1)], "fail"), ([drilled("cut")], "unknown"),
    ([drilled(), drilled("cut", "A", lost=1)], "pass"),
], ids=str)  # fmt: skip
def test_nothing_is_lost_where_a_kill_counts_and_no_write_is_missing(drills, verdict):
    assert claims.nothing_lost([a_cell(lost=None, damaged=None)], drills).verdict == verdict


@pytest.mark.parametrize(("changes", "verdict"), [
    ({"lost": 0, "damaged": 0}, "pass"), ({"lost": 1}, "fail"), ({"lost": None, "damaged": 2}, "fail"),
    ({"lost": 1, "damaged": 1}, "fail"), ({"lost": 1, "protocol": "A"}, "pass"), ({"lost": 1, "protocol": "B"}, "pass"),
], ids=str)  # fmt: skip
def test_what_is_missing_after_rounds_of_protocol_c_is_lost(changes, verdict):
    found = claims.nothing_lost([a_cell(lost=0, damaged=0), a_cell(**changes)], [drilled()])
    assert found.verdict == verdict
    if verdict == "fail":
        count = (changes["lost"] or 0) + changes.get("damaged", 0)
        assert f"{count} acknowledged writes lost or damaged in measured rounds" in found.sentence


@pytest.mark.parametrize(("drills", "verdict", "words"), [
    ([], "unknown", "no cut of the link was drilled"),
    ([drilled("cut", completed_during_cut_max=0)], "fail", "in 3 cuts of the link"),
    ([drilled("cut", completed_during_cut_max=0, recovery_time_ns_max=2e9), drilled("cut", completed_during_cut_max=0)], "fail",
     "6 cuts of the link: 100 % available is refuted; writes completed again 2.00 s after the heal at the latest"),
    ([drilled("cut", completed_during_cut_max=0), drilled("cut", completed_during_cut_max=7)], "pass",
     "up to 7 in one of 6 cuts"),
    ([drilled("cut", completed_during_cut_max=1)], "pass", "up to 1"),
    ([drilled("cut", "A", completed_during_cut_max=0)], "unknown", "was drilled"),
    ([drilled("cut", count=0, uncounted={"load": 1}, uncounted_reasons=["late"])], "unknown", "no cut of the link counts"),
    ([drilled(completed_during_cut_max=0)], "unknown", "was drilled"),
], ids=str)  # fmt: skip
def test_writes_must_go_on_during_a_cut(drills, verdict, words):
    found = claims.available(drills)
    assert found.verdict == verdict and words in found.sentence


@pytest.mark.parametrize(("drills", "verdict"), [
    ([], "unknown"), ([drilled(recovery_point_ns_max=1e6)], "unknown"),
    ([drilled("cut", "A", recovery_point_ns_max=1e6)], "unknown"),
    ([drilled("kill", "A", recovery_point_ns_max=0.0)], "pass"), ([drilled("kill", "A", recovery_point_ns_max=1e9)], "pass"),
    ([drilled("kill", "A", recovery_point_ns_max=1e9 + 1)], "fail"), ([drilled("kill", "A")], "unknown"),
    ([drilled("kill", "A", recovery_point_ns_max=1e6), drilled("kill", "A", recovery_point_ns_max=2e9)], "fail"),
    ([drilled("kill", "A", damaged=1, recovery_point_ns_max=1e6)], "fail"),
    ([drilled("kill", "A", count=0, uncounted_damaged=1)], "fail"), ([drilled("kill", "A", count=0)], "unknown"),
    ([drilled("kill", "A", count=0, recovery_point_ns_max=1e6), drilled("kill", "A", recovery_point_ns_max=1e6)], "pass"),
], ids=str)  # fmt: skip
def test_a_recovery_point_is_small_up_to_a_second_at_worst(drills, verdict):
    assert claims.small_recovery_point(drills).verdict == verdict


def fit_of(protocol="A", quantile=0.5, **changes):
    fit = next(item for item in analysed(changes=QUICK, writes=200)[1].fits if item.protocol == "A")
    return msgspec.structs.replace(fit, protocol=protocol, quantile=quantile, **changes)


def trips(k):
    return Estimate(value=k, low=k - 0.01, high=k + 0.01, confidence=0.95, without=[k] * 5)


def test_of_several_fits_the_median_of_protocol_a_one_write_at_a_time_decides():
    flat, steep = trips(0.0), trips(1.0)
    assert claims.any_distance([fit_of("C", k=flat), fit_of(quantile=0.99, k=flat)]).verdict == "unknown"
    deep, single = fit_of(queue_depth=8, k=steep), fit_of(queue_depth=1, k=flat)
    assert claims.any_distance([deep, single]).verdict == "pass" and claims.any_distance([deep]).verdict == "fail"
    tail, others = fit_of(quantile=0.99, k=trips(0.5)), fit_of(quantile=0.99, name="other", k=trips(0.7))
    found = claims.any_distance([others, fit_of("C", quantile=0.99, k=trips(0.8)), single, tail])
    assert ", 0.50 at p99" in found.sentence and " at p99" not in claims.any_distance([others, single]).sentence
    assert claims.any_distance([single, fit_of(name="another", k=steep)]).verdict == "pass"  # The first workload's.
    no_tail = fit_of(quantile=0.99, k=Estimate(value=None))
    assert " at p99" not in claims.any_distance([single, no_tail]).sentence
    interrupted = claims.any_distance([single], True)
    assert interrupted.verdict == "unknown" and [one.code for one in interrupted.reasons] == ["interrupted"]


def test_that_distance_has_no_part_cannot_be_told_without_an_interval_and_says_why_once():
    doubted = msgspec.structs.replace(trips(0.0), warnings=[reasons.unsound()])
    found = claims.any_distance([fit_of(k=doubted)])
    assert found.verdict == "unknown" and found.reasons == (reasons.unsound(),)
    for ends in ({"low": None}, {"high": None}):
        assert claims.any_distance([fit_of(k=msgspec.structs.replace(trips(0.0), **ends))]).verdict == "unknown"
