"""Scenarios: what is shipped can be played, and what cannot be played is refused with its line before anything starts."""

import pytest

from farwrite.base.errors import UnfitError, UsageError
from farwrite.commands.drill import setups_of
from farwrite.experiment.drill.trial import instants
from farwrite.workload import drill_scenario as scenarios

HEAD = 'title = "x"\nend = "5 s"\n'


def event(**keys):
    def value(one):
        return str(list(one)) if isinstance(one, tuple) else f'"{one}"'

    return "[[event]]\n" + "".join(f"{key} = {value(one)}\n" for key, one in keys.items())


def setup(**changes):
    words = {"miles": "150", "protocol": "C", "policy": "consent", "replicas": None, "no_witness": False, "rate": 500.0,
             "depth": 64, "size": "4k", "bound": "250 ms", "peer_timeout": "1 s", "trials": 1, "seed": 1}  # fmt: skip
    return setups_of(**words | changes)


def test_every_shipped_scenario_is_read_and_goes_with_the_usual_setup():
    assert len(scenarios.shipped()) >= 13
    for name in scenarios.shipped():
        made = scenarios.load(name)
        assert made.title and made.about
        scenarios.check_setup(made, *setup())


@pytest.mark.parametrize(("text", "line", "said"), [
    (event(action="kil", at="1 s", site="near"), 4, 'no action "kil" .did you mean "kill"'),
    (event(action="kill", at="6 s", site="near"), 5, "behind the end of the drill"),
    (event(action="kill", at="1 s", until="6 s", site="near"), 5, "behind the end of the drill"),
    (event(action="kill", at="1 s", site="naer"), 6, 'is of one site, and "naer" is none .did you mean "near"'),
    (event(action="kill", at="1 s"), 3, "is of one site"),
    (event(action="cut", at="1 s", link=("near", "nowhere")), 6, 'no site "nowhere"'),
    (event(action="cut", at="1 s", link=("near",)), 6, "a link between two sites"),
    (event(action="heal", at="1 s", link=("near", "far")), 4, "was not cut, slow or lossy before"),
    (event(action="restart", at="1 s", site="far"), 4, "far was not killed before"),
    (event(action="continue", at="1 s", site="far"), 4, "far was not stopped before"),
    (event(action="switch-over", at="1 s", site="third"), 4, "no second copy"),
    (event(action="kill", at="1 s", site="far") + event(action="stop", at="2 s", site="far"), 8, "the process of far is gone"),
    (event(action="lose", at="1 s", site="far") + event(action="restart", at="2 s", site="far"), 8, "the process of far is gone"),
    (event(action="kill", at="2 s", site="far") + event(action="restart", at="1 s", site="far"), 9, "in the order in which"),
    (event(action="kill", at="1 s", site="near", when="now"), 7, 'unknown key "when"'),
    ("event = []\n", 3, "at least one"),
    ("servers = 1000\n" + event(action="kill", at="1 s", site="near"), 3, "0 to 256"),
    ("miles = -1\n" + event(action="kill", at="1 s", site="near"), 3, "between 0 and"),
    ('rate = "1 kbit/s"\n' + event(action="kill", at="1 s", site="near"), 3, "1 Mbit/s at least"),
    (event(action="slow", at="1 s", link=("near", "far")), 4, '"extra_rtt" goes with "slow"'),
    (event(action="cut", at="1 s", link=("near", "far"), loss="1 %"), 4, '"loss" goes with "lossy"'),
    (event(action="lossy", at="1 s", link=("near", "far"), loss="80 %"), 7, "not above 0.5"),
    (event(action="slow", at="1 s", link=("near", "far"), extra_rtt="2 s"), 7, "not above 1"),
    (event(action="disk-heal", at="1 s", site="near"), 4, "was not stalled before"),
    (event(action="disk-full", at="1 s", site="near") + event(action="disk-stall", at="2 s", site="near"), 8, "want of its disk"),
    (event(action="kill", at="1 s", site="far", clock_ahead="1 h"), 4, '"clock_ahead" goes with "restart"'),
    (event(action="kill", at="1 s", site="far") + event(action="restart", at="2 s", site="far", clock_ahead="-1 s"), 11,
     "above 0"),
    (event(action="kill", at="1 s", site="far") + event(action="restart", at="2 s", site="far", clock_ahead="10000 h"), 11,
     "not above"),
    (event(action="power-off", at="1 s", site="far") + event(action="stop", at="2 s", site="far"), 8, "the process of far"),
])  # fmt: skip
def test_what_cannot_be_played_is_refused_with_its_line(text, line, said):
    with pytest.raises(UsageError, match=rf"^d.toml:{line}: .*{said}"):
        scenarios.parse(HEAD + text, "d.toml")


@pytest.mark.parametrize(("words", "said"), [
    ({"no_witness": True}, "leave --no-witness away"),
    ({"protocol": "quorum", "replicas": 2}, "add --replicas 3"),
    ({"no_witness": True, "policy": "block"}, "without a witness nothing votes"),
])  # fmt: skip
def test_a_policy_that_needs_a_witness_is_refused_without_one(words, said):
    with pytest.raises(UsageError, match=said):
        scenarios.check_setup(scenarios.load("witness-then-primary"), *setup(**words))


@pytest.mark.parametrize("words", [
    {"protocol": "local"}, {"protocol": "D"}, {"policy": "hope"}, {"miles": "-1"}, {"size": "1000"}, {"rate": 0.5}, {"trials": 0},
    {"bound": "0 s"}, {"peer_timeout": "1 ms"}, {"depth": 0}, {"seed": -1},
])  # fmt: skip
def test_words_out_of_their_bounds_are_refused(words):
    with pytest.raises(UsageError, match="--"):
        setup(**words)


def test_several_distances_protocols_and_policies_are_every_combination():
    made = setup(miles="20,80km", protocol="A,quorum", policy="block,consent")
    assert len(made) == 8
    assert {(one.protocol, one.replicas, one.has_witness) for one in made} == {("A", 2, True), ("quorum", 3, False)}


def test_a_random_phase_is_drawn_anew_for_each_trial_and_the_same_from_the_same_seed():
    made, (asked,) = scenarios.load("primary-random-phase"), setup()
    drawn = [instants(made, asked, index)[0] for index in range(20)]
    assert len(set(drawn)) == 20 and all(made.event[0].at_ns <= at <= made.event[0].until_ns for at in drawn)
    assert drawn == [instants(made, asked, index)[0] for index in range(20)]


def test_the_disk_of_a_site_without_a_volume_cannot_fail():
    made = scenarios.parse(HEAD + event(action="disk-full", at="1 s", site="third"), "d.toml")
    with pytest.raises(UsageError, match="no volume"):
        scenarios.check_setup(made, *setup())
    scenarios.check_setup(made, *setup(protocol="quorum", replicas=3))


def test_a_replica_whose_disk_failed_may_be_started_again_and_killed_again():
    text = "".join(event(action=action, at=f"{at} s", site="near") for at, action in enumerate(
        ("disk-full", "restart", "disk-refuse", "kill", "restart"), start=0)).replace('"0 s"', '"100 ms"')
    assert len(scenarios.parse(HEAD + text, "d.toml").event) == 5


def test_the_peer_timeout_follows_the_distance_unless_one_is_asked_for():
    near, far = setup(miles="150,12000", peer_timeout="auto")
    assert near.peer_timeout_ns == 500_000_000 and far.peer_timeout_ns > 3_000_000_000


def test_only_a_replicas_clock_can_be_ahead():
    text = event(action="kill", at="1 s", site="third") + event(action="restart", at="2 s", site="third", clock_ahead="1 h")
    made = scenarios.parse(HEAD + text, "d.toml")
    with pytest.raises(UsageError, match="only a replica's clock"):
        scenarios.check_setup(made, *setup())
    scenarios.check_setup(made, *setup(protocol="quorum", replicas=3))


PLAYED_ON_LOOPBACK = {
    "both-lose-power", "disk-full", "disk-refuses", "disk-stalls", "machine-lost", "primary-killed", "primary-random-phase",
    "primary-returns", "primary-stalled", "secondary-disk-stalls", "secondary-killed", "secondary-returns", "switch-over",
    "witness-then-primary",
}  # fmt: skip


@pytest.mark.parametrize("name", scenarios.shipped())
def test_without_links_what_kills_and_stalls_is_played_and_the_rest_refused_with_what_to_choose(name):
    made = scenarios.load(name)
    if name in PLAYED_ON_LOOPBACK:
        scenarios.check_without_links(made)
    else:
        with pytest.raises(UnfitError, match=r"privileges|time namespace"):
            scenarios.check_without_links(made)
