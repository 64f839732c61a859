"""Cases as text: what is shipped can be read, what cannot be measured is refused with its line, and a quick one is small."""

import pytest

from farwrite.base.errors import UsageError
from farwrite.workload import case_profile as cases
from farwrite.workload.drill_scenario import load as load_drill
from farwrite.workload.shipped import text_of

DATABASE, _ = text_of("automation", "cases", "case")
CAMPUS, _ = text_of("campus", "cases", "case")


def test_both_cases_of_the_paper_are_shipped_and_say_what_they_assume():
    assert cases.shipped() == ["automation", "campus"]
    campus, automation = cases.load("campus"), cases.load("automation")
    assert campus.parts == ("steady", "faults", "thin") and automation.parts == ("database",)
    assert campus.thin.volumes == 100 and 0.5 in campus.steady.miles and load_drill(campus.faults.scenario).servers == 100
    assert automation.database.period_ns == 900 * 10**9 and automation.database.growth_bytes == 15 * 10**12
    assert 7 < automation.database.growth_bytes_per_s / (64 << 10) < 7.5
    for case in (campus, automation):
        assert case.assumed and all(not sentence.endswith(".") for sentence in case.assumed)


@pytest.mark.parametrize(
    ("text", "before", "after", "said"),
    [
        (CAMPUS, "trials = 3", "trials = 0", r":\d+: faults.trials: it must lie between 1 and 1000"),
        (CAMPUS, 'written_least = "10 %"', 'written_least = "70 %"', r":\d+: thin.written_least"),
        (CAMPUS, "volumes = 100", "volumes = 100\nvolume = 1", r'unknown key "volume" \(did you mean "volumes"'),
        (CAMPUS, "miles = [0, 0.5]", "miles = []", "give at least one distance"),
        (CAMPUS, "miles = [0, 0.5]", 'miles = "far"', "steady.miles"),
        (DATABASE, 'room = "3 GiB"', 'room = "300 MiB"', "database.room"),
        (DATABASE, 'place = "hot-spot"', 'place = "hotspot"', r'no place "hotspot" \(did you mean "hot-spot"'),
        (DATABASE, 'block = "8 KiB"', 'block = "9000 B"', "blocks are multiples of 4096 bytes"),
        (DATABASE, 'scaled = "8 s"', 'scaled = "20 min"', "database.scaled"),
        (DATABASE, "[database]", "[databases]", 'unknown key "databases"'),
        ('title = "x"\nabout = "y"', "x", "z", r"at least one of \[steady\]"),
        ("title = ", "x", "x", "read the case"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_line(text, before, after, said):
    with pytest.raises(UsageError, match=said):
        cases.parse(text.replace(before, after), "own.toml")


def test_an_unknown_case_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match=r'no case "campos" .*campus'):
        cases.load("campos")


def test_a_quick_case_has_the_same_parts_and_is_small():
    for name in cases.shipped():
        whole, quick = cases.load(name), cases.quick(cases.load(name))
        assert quick.parts == whole.parts and quick.assumed == whole.assumed
    database, thin = cases.quick(cases.load("automation")).database, cases.quick(cases.load("campus")).thin
    assert database.regions_bytes < 64 << 20 and database.scaled_ns <= 2 * 10**9 and thin.volumes == 3
    assert all(stream.region_bytes % stream.block_bytes == 0 for stream in database.stream)
