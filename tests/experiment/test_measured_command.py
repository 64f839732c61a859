"""What a repeated command comes to: the truth behind made-up times is found again, and nothing is said that they do not show."""

from __future__ import annotations

import io
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from rich.console import Console

from console import farwrite
from farwrite.analysis.command import analyse_command
from farwrite.base.errors import EXIT_USAGE, UsageError
from farwrite.base.physics import rtt_ns_of
from farwrite.base.units import NS_PER_MS
from farwrite.commands.link_options import LinkOptions
from farwrite.experiment.repeat import ROUNDS_MAX, RUNS_MAX, RUNS_MIN, planned, sizes_of
from farwrite.recording import Pair, Repeated, Turn
from farwrite.report.command import named, show_command

OWN_NS = 70_000  # A packet's way through the emulation, with nothing held back.


def repeated(k=12.0, a_ns=40 * NS_PER_MS, runs=60, rounds=20, miles=50.0, noise=0.01, seed=1, link_ns=None, **other):
    """A command that waits for k round trips and takes a_ns besides; the machine's mood changes from round to round."""
    dice = np.random.default_rng(seed)
    far_ns = float(rtt_ns_of(miles)) if link_ns is None else link_ns
    pairs = []
    for index in range(rounds):
        mood = float(np.exp(noise * dice.standard_normal()))

        def turn(rtt_ns, mood=mood):
            rtts_ns = rtt_ns + dice.normal(0, 500, 20)
            times_ns = mood * a_ns * np.exp(noise * dice.standard_normal(runs // rounds)) + k * rtt_ns
            return Turn(rtt_ns=rtts_ns.tolist(), run_ns=times_ns.astype(int).tolist())

        pairs.append(Pair(near_first=index % 2 == 0, at_0=turn(OWN_NS), far=turn(far_ns)))
    values = {
        "farwrite": "0", "started_utc": "2026-01-01T00:00:00", "command": ["psql", "-c", "select 1"], "miles": miles,
        "asked_rtt_ns": rtt_ns_of(miles), "is_ping": False, "route_factor": 1.0, "asked_besides": "", "link": "ferry",
        "link_reason": "made up", "keep_awake": "none", "keep_awake_reason": "", "warmups": 2, "planned_runs": runs,
        "rounds": pairs, "void": [],
    }  # fmt: skip
    return Repeated(**{**values, **other})


def shown(made, width=80):
    console = Console(file=io.StringIO(), width=width)
    show_command(made, analyse_command(made), console)
    return console.file.getvalue()


@pytest.mark.parametrize("k", [1.0, 12.0, 200.0])
def test_the_round_trips_and_the_rest_are_found_again(k):
    result = analyse_command(repeated(k=k, noise=0.002))
    assert result.effect == "more"
    assert result.k.low <= k <= result.k.high and result.k.high - result.k.low < 1.0
    assert result.a_ns.low <= 40e6 <= result.a_ns.high
    delivered_ns = result.far.rtt_ns_p50.value - result.at_0.rtt_ns_p50.value
    assert result.added_ns.value == pytest.approx(result.k.value * delivered_ns, rel=1e-6)


def test_a_distance_does_not_contain_the_emulations_own_passage_twice():
    """Exactly one round trip over a short distance: against what was asked for it would be 0.78 of one, which no light does."""
    result = analyse_command(repeated(k=1.0, a_ns=1e6, miles=20.0, noise=0.0005))
    assert result.k.low <= 1.0 <= result.k.high and result.k.value == pytest.approx(1.0, abs=0.03)


def test_times_of_a_second_are_kept_to_the_nanosecond():
    """Slots of a thousandth would be 1 ms wide here, more than the round trip."""
    result = analyse_command(repeated(k=1.0, a_ns=1_000_000_000, noise=1e-6))
    assert result.k.value == pytest.approx(1.0, abs=0.02)


def test_what_does_not_use_the_network_is_shown_not_to_depend_on_it_or_left_open():
    quiet = analyse_command(repeated(k=0.0, a_ns=1e6, noise=0.0005))
    assert quiet.effect == "none"
    assert "does not depend on the distance" in shown(repeated(k=0.0, a_ns=1e6, noise=0.0005))
    noisy = repeated(k=0.0, noise=0.05)
    assert analyse_command(noisy).effect == "unclear"
    assert "No difference shown" in shown(noisy) and "In between" not in shown(noisy)


def test_a_run_that_is_shorter_at_the_distance_is_no_effect_of_it():
    made = repeated(k=-10.0, noise=0.002)
    assert analyse_command(made).effect == "less"
    assert "no distance does that" in shown(made)


def test_round_trips_that_would_last_longer_than_the_run_are_unknown():
    """k = 12 and 9 ms in all: 12 round trips of 0.79 ms are more than that."""
    made = repeated(k=12.0, a_ns=-0.4e6, noise=0.0002)
    result = analyse_command(made)
    assert result.k.value is None and "light alone" in str(result.k.warnings[0])
    assert result.between == []
    assert "k is unknown" in shown(made)


@pytest.mark.parametrize(("runs", "rounds", "reason"), [
    (5, 5, "p50 needs n >= 6 (n = 5)"), (1, 1, "p50 needs n >= 6 (n = 1)"), (8, 2, "2 rounds only"),
    (0, 0, "nothing was counted"),
])  # fmt: skip
def test_few_runs_leave_it_unknown_and_say_why(runs, rounds, reason):
    made = repeated(runs=runs, rounds=rounds)
    result = analyse_command(made)
    assert result.effect == "unknown"
    for estimate in (result.k, result.a_ns, result.added_ns):
        assert estimate.value is None and reason in str(estimate.warnings[0])
    assert reason in " ".join(shown(made).split())


def test_a_percentile_that_so_few_runs_do_not_support_says_how_many_would():
    result = analyse_command(repeated(runs=60))
    assert result.far.run_ns_p90.value is not None
    assert "p99 needs n >= 368" in str(result.far.run_ns_p99.warnings[0])
    assert "n≥368" in shown(repeated(runs=60))
    assert analyse_command(repeated(runs=400)).far.run_ns_p99.value is not None


def test_a_link_that_delivered_nothing_makes_nothing_known():
    result = analyse_command(repeated(link_ns=OWN_NS + 10_000))
    assert result.effect == "unknown" and "ask for a greater distance" in str(result.k.warnings[0])


def test_other_distances_lie_between_those_measured_and_on_the_line():
    result = analyse_command(repeated(noise=0.002))
    assert [item.miles for item in result.between] == [12.5, 25.0, 37.5]
    values = [item.run_ns_p50.value for item in result.between]
    assert result.at_0.run_ns_p50.value < values[0] < values[1] < values[2] < result.far.run_ns_p50.value
    for item in result.between:
        assert item.run_ns_p50.value == pytest.approx(40e6 + 12 * rtt_ns_of(item.miles), rel=0.005)
        assert item.run_ns_p50.low < item.run_ns_p50.value < item.run_ns_p50.high
    near = analyse_command(repeated(miles=16.0, noise=0.0005))  # A fourth of it is less than the emulation itself takes.
    assert [item.miles for item in near.between] == [8.0, 12.0]


def test_the_answer_comes_first_and_fits_eighty_columns():
    text = shown(repeated())
    first = " ".join(text.split("\n\n")[0].split())
    assert first.startswith("psql -c 'select 1' takes 4") and " at 0 miles and " in first and " at 50 miles." in first
    assert "The distance adds" in first and "round trips" in first
    assert max(map(len, text.splitlines())) <= 80
    assert "INTERRUPTED" in shown(repeated(interrupted=True)).splitlines()[0]


def test_a_long_command_is_only_named():
    assert named(["sh", "-c", "x" * 200]).endswith("…") and len(named(["sh", "-c", "x" * 200])) <= 60
    assert named(["sh", "-c", "a\n  b"]) == "sh -c 'a b'"


def test_the_document_holds_every_time_and_decodes():
    made = repeated()
    text = msgspec.json.encode({"repeated": made, "result": analyse_command(made)})
    back = msgspec.json.decode(text)
    assert msgspec.convert(back["repeated"], Repeated) == made
    assert sum(len(pair["far"]["run_ns"]) for pair in back["repeated"]["rounds"]) == back["result"]["far"]["runs"] == 60


# How many runs


def test_runs_are_spread_over_rounds_and_none_is_lost():
    for runs in (1, 6, 10, 19, 20, 21, 57, 1000):
        sizes = sizes_of(runs)
        assert sum(sizes) == runs and len(sizes) == min(runs, ROUNDS_MAX) and max(sizes) - min(sizes) <= 1


def test_the_time_says_how_many_runs_there_are_and_a_median_is_supported_in_any_case():
    assert planned(60.0, 0.5) == 120
    assert planned(60.0, 30.0) == planned(1.0, 1000.0) == RUNS_MIN
    assert planned(60.0, 0.001) == planned(60.0, 0.0) == RUNS_MAX


# Words


@pytest.mark.parametrize(("words", "said"), [
    (["--miles", "80km", "--measure"], "give it after --"),
    (["--miles", "0", "--measure", "--", "true"], "give one above 0"),
    (["--miles", "80km", "--runs", "9", "--", "true"], "--runs goes with --measure"),
    (["--miles", "80km", "--json", "--", "true"], "--json goes with --measure"),
    (["--miles", "80km", "--measure", "--runs", "9", "--minutes", "2", "--", "true"], "both say how many"),
    (["--miles", "80km", "--measure", "--runs", "0", "--", "true"], "--runs 0: 1 to"),
    (["--miles", "80km", "--measure", "--warmup", "0", "--", "true"], "--warmup 0: at least 1"),
    (["--miles", "80km", "--measure", "--minutes", "nan", "--", "true"], "--minutes nan: give a number above 0"),
    (["--sites", "x.toml", "--measure", "--", "true"], "no such file"),
    (["--miles", "80 parsec", "--", "true"], 'unit "parsec"'),
    (["--miles", "-1", "--", "true"], "is not a length"),
])  # fmt: skip
def test_wrong_words_are_refused_before_a_lab_is_opened(words, said):
    done = farwrite("lab", *words)
    assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
    assert said.lower() in done.stderr.lower(), done.stderr


def test_miles_take_another_unit():
    assert LinkOptions(miles="80km").distance() == LinkOptions(km=80).distance()
    assert LinkOptions(miles="150").distance() == LinkOptions(miles="150 miles").distance()
    with pytest.raises(UsageError, match="say one of miles, km and rtt"):
        LinkOptions(miles="80km", km=80).distance()


# Taking turns, in a pretend lab


class Pretend:
    """A session whose command takes what a test says; notes the order of things."""

    def __init__(self, off_ns=()):
        self.events, self.off_ns, self.rtt_ns = [], list(off_ns), 0
        self.lab = self

    def set_rtt(self, rtt_ns):
        self.rtt_ns = rtt_ns

    def set_distance(self, asked):
        self.rtt_ns = asked.rtt_ns

    def survey(self, count):
        return SimpleNamespace(rtt_ns=np.full(count, self.rtt_ns + OWN_NS), rtt_ns_p50=float(self.rtt_ns + OWN_NS))

    def prove(self, asked, count):
        missed_ns = self.off_ns.pop(0) if self.off_ns else 0
        return SimpleNamespace(rtt_ns=np.full(count, asked.rtt_ns), rtt_ns_p50=float(asked.rtt_ns + missed_ns))

    def run_ns(self, what):
        self.events.append(("far" if self.rtt_ns else "near", what))
        return 1_000_000 + self.rtt_ns


def measured(pretend, **other):
    from farwrite.base.physics import distance
    from farwrite.experiment.repeat import Asked, Repetition
    from farwrite.lab.topology import Leg
    from farwrite.progress import Silence
    from farwrite.workload.link_spec import PLAIN

    values = {"command": ["x"], "leg": Leg("near", "far", distance(20), PLAIN), "route_factor": 1.0, "runs": 8, "time_s": 1.0,
              "warmups": 2, "accept_error": False}  # fmt: skip
    made = Repetition(pretend, Asked(**{**values, **other}))
    made.measure(pretend, Silence())
    return made


def test_both_distances_take_turns_and_with_who_is_first():
    pretend = Pretend()
    made = measured(pretend)
    warm, counted = pretend.events[:4], pretend.events[4:]
    assert [place for place, _ in warm] == ["near", "far", "near", "far"] and all("warm-up" in what for _, what in warm)
    assert [place for place, _ in counted] == ["near", "far", "far", "near"] * 4
    assert [pair.near_first for pair in made.rounds] == [True, False] * 4
    assert all(len(pair.at_0.run_ns) == len(pair.far.run_ns) == 1 for pair in made.rounds)


def test_a_round_whose_link_was_off_is_left_out_and_made_again():
    made = measured(Pretend([0, 500_000, 0]))
    assert len(made.rounds) == 8 and [str(reason) for reason in made.void] == ["the link before the round was +500 us off"]
    accepted = measured(Pretend([500_000] * 50), accept_error=True)
    assert len(accepted.rounds) == 8 and accepted.void == []


def test_a_link_that_is_always_off_leaves_nothing_and_says_so():
    from farwrite.base.errors import UnfitError

    with pytest.raises(UnfitError, match=r"Not one good round: the link before the round was \+500 us off.*--accept-link-error"):
        measured(Pretend([500_000] * 100), runs=2)
