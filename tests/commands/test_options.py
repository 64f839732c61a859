"""The command line's own words for keys of a profile: what they set, how they meet --set, and what is refused by name."""

import pytest

from farwrite.base.errors import UsageError
from farwrite.commands.options import Options
from farwrite.experiment.cells import cells_of
from farwrite.workload.catalog import load
from farwrite.workload.profile import parse

ONE = 'title = "t"\n[distance]\nmiles = [20]\n[[cell]]\nname = "write"\nprotocols = ["C"]\n'


def asked(text=ONE, set_=(), **words):
    return parse(text, "t", [*set_, Options(**words).change(set_)])


@pytest.mark.parametrize(
    ("words", "miles", "km"),
    [
        ("0,20,150", [0, 20, 150], []),
        ("0..500", [0, 100, 200, 300, 400, 500], []),
        ("0..500:200", [0, 200, 400, 500], []),
        ("0..1:0.25", [0, 0.25, 0.5, 0.75, 1], []),
        ("100km", [], [100]),
        ("0..100 km:50,20", [20], [0, 50, 100]),
        ("5 miles, 10km", [5], [10]),
    ],
)
def test_distances_as_lists_ranges_and_in_km(words, miles, km):
    distance = asked(miles=words).distance
    assert (distance.miles, distance.km) == (miles, km)


def test_a_range_has_as_many_points_as_asked():
    assert parse(ONE, "t", [Options(miles="0..500").change(points=3)]).distance.miles == [0, 250, 500]


def test_every_distance_is_every_cells():
    profile = load("limits", [Options(miles="0,50").change()])
    assert {cell.miles for cell in cells_of(profile)} == {0, 50}
    assert all(not table.miles for table in profile.cell)


def test_several_values_make_variants_with_names_and_one_keeps_the_name():
    cells = asked(depth="1,8", size="4k,64 KiB", pattern="random", read_share="30%").cell
    assert [(cell.name, cell.queue_depth, cell.block_bytes) for cell in cells] == [
        ("write-qd1-4k", 1, 4096), ("write-qd1-64k", 1, 65536), ("write-qd8-4k", 8, 4096), ("write-qd8-64k", 8, 65536),
    ]  # fmt: skip
    assert {(cell.reads, cell.address) for cell in cells} == {(0.3, "uniform")}
    assert asked(depth="8").cell[0].name == "write"


def test_rate_and_loss_are_both_directions_and_go_before_what_the_profile_says_of_one():
    text = ONE + '[link]\nbursts = { enter = "1 %", leave = "50 %" }\n[link.homeward]\nrate = "10 Mbit/s"\nloss = "5 %"\n'
    link = asked(text, rate="1gbit", loss="0.01%").link
    for way in link.directions:
        assert way.rate_bits_per_s == 10**9
        assert way.loss_ratio == pytest.approx(1e-4)
        assert way.bursts is None


def test_they_compose_with_set():
    profile = load("limits", ["run.rounds=3", "cell.write.address=zipf", Options(depth="1,2").change(["run.rounds=3"])])
    assert profile.run.rounds == 3
    assert {cell.address for cell in profile.cell if cell.name.startswith("write-")} == {"zipf"}


@pytest.mark.parametrize(
    ("words", "change", "key"),
    [
        ({"depth": "1"}, "cell.write.queue_depth=4", "cell.queue_depth"),
        ({"miles": "1"}, "distance.km=[4]", "distance.miles"),
        ({"rate": "1gbit"}, 'link.homeward.rate="1 Mbit/s"', "link.rate"),
        ({"size": "4k"}, 'cell.block="8 KiB"', "cell.block"),
    ],
)
def test_one_key_set_twice_is_refused_with_both_names(words, change, key):
    with pytest.raises(UsageError, match=f"sets {key}, and so does --set"):
        Options(**words).change([change])


def test_cells_that_have_become_the_same_are_measured_once():
    options = Options(depth="1", protocol="C").change()
    profile = load("limits", [options])
    assert [cell.name for cell in profile.cell] == ["write", "pgbench"]
    assert [words.split('"')[1] for words in options.merged] == ["deep", "received"]
    assert len({cell.id for cell in cells_of(profile)}) == len(cells_of(profile))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"depth": "0"}, "queue_depth must lie between"),
        ({"depth": "x"}, r"--depth \(cell.queue_depth\): \"x\" is not a whole number"),
        ({"depth": "1,,2"}, r"--depth \(cell.queue_depth\).*1,8,32"),
        ({"depth": "1,1"}, r"--depth.*named twice"),
        ({"miles": "5..2"}, r"--miles \(distance.miles\).*from near to far"),
        ({"miles": "0..9000:1"}, r"at most 200"),
        ({"miles": "4 parsec"}, r"--miles \(distance.miles\): unit \"parsec\""),
        ({"miles": "20000"}, "distance.miles: a distance must lie between"),
        ({"rate": "500 /s"}, r"--rate \(link.rate\).*cell.rate"),
        ({"rate": "1gbit,2gbit"}, r"--rate \(link.rate\).*share one link"),
        ({"loss": "7"}, r"--loss \(link.loss\)"),
        ({"pattern": "randon"}, r"--pattern \(cell.address\).*did you mean \"random\""),
        ({"protocol": "D"}, r"--protocol \(cell.protocols\)"),
        ({"size": "8q"}, r"--size \(cell.block\)"),
        ({"read_share": "1.5"}, r"--read-share \(cell.reads\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_key(words, said):
    with pytest.raises(UsageError, match=said):
        asked(**words)
