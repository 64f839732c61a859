"""Profiles: every mistake is a sentence with file, line and nearest word; every text is a profile or refused."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from farwrite.base import units
from farwrite.base.errors import UsageError
from farwrite.workload import profile
from farwrite.workload.catalog import load, shipped
from farwrite.workload.profile import parse
from farwrite.workload.tables import (
    CellTable,
    DistanceTable,
    DrillTable,
    LabTable,
    Profile,
    RunTable,
    digest,
    without_defaults,
)
from farwrite.workload.toml_reader import Reader, key_of

TEXT = '''\
title = "A test"
reason = """
[[cell]]
queue_depth = "not a key: this is prose"
"""

[lab]
journal = "32 MiB"

[distance]
miles = [0, 20, 150]
route_factor = 1.0
equipment = "0 us"

[run]
rounds = 3
round = "1 s"

[[cell]]
name = "one"
protocols = ["C", "A"]
queue_depth = 1
block = "4 KiB"

[[cell]]
# queue_depth = 7
name = "two"
protocols = ["C"]
queue_depth = 2
arrival = "poisson"
rate = "100 /s"
block = "4 KiB"
mix = [{block = "8 KiB", share = 3}, {block = "512 B"}]
miles = [20]

[drill]
kills = 1
miles = 150
protocols = ["C"]
load = "150 ms"
'''


def line_of(words, after=""):
    """Where `words` stand in TEXT, below the first line with `after`."""
    lines = TEXT.splitlines()
    begin = next(number for number, line in enumerate(lines) if after in line)
    return next(number for number, line in enumerate(lines, 1) if number > begin and words in line)


def refusal_of(text, changes=()):
    with pytest.raises(UsageError) as refusal:
        parse(text, "p.toml", changes)
    return str(refusal.value)


def with_line(words, instead, after=""):
    """TEXT with one line changed, and that line's number."""
    lines = TEXT.splitlines()
    number = line_of(words, after)
    lines[number - 1] = instead
    return "\n".join(lines), number


def test_the_test_profile_is_one():
    parsed = parse(TEXT)
    assert [cell.name for cell in parsed.cell] == ["one", "two"]
    assert parsed.run.round_ns == units.NS_PER_S and parsed.cell[1].rate_per_s == 100.0
    assert [item.block_bytes for item in parsed.cell[1].mix] == [8192, 512]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_profile_loads(name):
    loaded = load(name)
    assert loaded.title and loaded.reason and loaded.cell


def test_the_shipped_profiles_are_limits_and_quick_at_least():
    assert {"limits", "quick"} <= set(shipped())


def keys():
    """Every key that a file may have, with its table and a line that sets it."""
    tables = {"lab": LabTable, "distance": DistanceTable, "run": RunTable, "cell": CellTable, "drill": DrillTable}
    for table, shape in tables.items():
        for field in shape.__struct_fields__:
            yield table, key_of(field)


@pytest.mark.parametrize(("table", "key"), list(keys()))
def test_a_misspelt_key_names_the_nearest_and_its_line(table, key):
    misspelt = key[:1] + key[2:] + "x" if len(key) > 3 else key + "x"
    lines = [f"{misspelt} = 1" if line == "# here" else line for line in bare(table).splitlines()]
    said = refusal_of("\n".join(lines))
    assert said.startswith(f"p.toml:{lines.index(f'{misspelt} = 1') + 1}: ")
    assert f'unknown key "{misspelt}"' in said and "did you mean" in said


def bare(table):
    """A short profile with a place for one line more in a table; of the cells, in the second."""
    parts = {
        "": 'title = "t"\n', "lab": "[lab]\n", "distance": "[distance]\nmiles = [5]\n", "run": "[run]\n",
        "one": '[[cell]]\nname = "a"\nprotocols = ["C"]\n', "cell": '[[cell]]\nname = "b"\nprotocols = ["C"]\n',
        "drill": "[drill]\n",
    }  # fmt: skip
    return "".join(words + ("# here\n" if name == table else "") for name, words in parts.items())


def test_the_bare_profile_is_one():
    assert len(parse(bare("run")).cell) == 2


WRONG = [
    # (line of TEXT that is replaced, line after which it is looked for, replacement, what is said)
    ("journal", "[lab]", 'journal = "32 MB iB"', "not a number with a unit"),
    ("journal", "[lab]", 'journal = "32 Mib"', 'did you mean "MiB"'),
    ("journal", "[lab]", "journal = 33554432", "not a number with a unit"),
    ("journal", "[lab]", 'journal = "20 MB"', "whole blocks"),
    ("journal", "[lab]", 'journal = "1 MiB"', "16 MiB"),
    ("journal", "[lab]", 'volume = "9e30 TiB"', "1 TiB"),
    ("journal", "[lab]", 'link = "tc"', "Invalid enum value"),
    ("journal", "[lab]", 'durability = "ram"', "Invalid enum value"),
    ("journal", "[lab]", 'encryption = "ssl"', "Invalid enum value"),
    ("journal", "[lab]", 'compression = "gzip"', "Invalid enum value"),
    ("journal", "[lab]", "near = 3", "Expected `str`"),
    ("miles", "[distance]", "miles = [-1]", "between 0 and 15 000"),
    ("miles", "[distance]", "miles = [20000]", "between 0 and 15 000"),
    ("miles", "[distance]", "miles = [nan]", "between 0 and 15 000"),
    ("miles", "[distance]", 'miles = ["20"]', "Expected `float`"),
    ("miles", "[distance]", "miles = 20", "Expected `array`"),
    ("miles", "[distance]", "miles = [20, 150, 20]", "twice"),
    ("miles", "[distance]", "km = [-3]", "between 0 and 15 000"),
    ("route_factor", "[distance]", "route_factor = 0.9", "1 to 10"),
    ("route_factor", "[distance]", "route_factor = nan", "1 to 10"),
    ("equipment", "[distance]", 'equipment = "-1 us"', "between 0 and 1 s"),
    ("equipment", "[distance]", 'equipment = "1 h"', "between 0 and 1 s"),
    ("rounds", "[run]", "rounds = 0", "between 1 and 1000"),
    ("rounds", "[run]", "rounds = 2.5", "Expected `int`"),
    ("rounds", "[run]", "rounds = true", "Expected `int`"),
    ("rounds", "[run]", "rounds = 99999999999999999999999", "between 1 and 1000"),
    ("rounds", "[run]", "retries = -1", "between 0 and 20"),
    ("rounds", "[run]", "survey_echoes = 4", "between 5 and"),
    ("rounds", "[run]", "floor_flushes = 4", "between 5 and"),
    ("rounds", "[run]", "steal_max = -0.1", "0 to 1"),
    ("round =", "[run]", 'round = "1 ms"', "50 ms"),
    ("round =", "[run]", 'round = "2 h"', "10 min"),
    ("round =", "[run]", 'round = "1 sec"', "unknown"),
    ("queue_depth", '"one"', "queue_depth = 0", "between 1 and 4096"),
    ("queue_depth", '"two"', "queue_depth = 5000", "between 1 and 4096"),
    ("queue_depth", '"two"', 'queue_depth = "2"', "Expected `int`"),
    ("protocols", '"two"', 'protocols = ["D"]', "Invalid enum value"),
    ("protocols", '"two"', "protocols = []", "at least one of"),
    ("protocols", '"two"', 'protocols = ["C", "C"]', "twice"),
    ("protocols", '"two"', 'other_miles = [20, 20, 20, 20]\nprotocols = ["C"]', "five replicas"),
    ("protocols", '"two"', 'other_miles = [-1]\nprotocols = ["C"]', "between 0 and 15 000"),
    ("protocols", '"two"', 'quorum = 2\nprotocols = ["C"]', 'for the protocol "quorum"'),
    ("protocols", '"two"', 'quorum = 3\nprotocols = ["quorum"]', "a quorum of 2 is 2 to 2"),
    ("protocols", '"two"', 'quorum = 2\nother_miles = [20, 60]\nprotocols = ["quorum"]', "a quorum of 4 is 3 to 4"),
    ("protocols", '"two"', 'on_congestion = "pull-ahead"\nprotocols = ["C"]', "only protocol A"),
    ("protocols", '"two"', 'on_congestion = "drop"\nprotocols = ["A"]', "Invalid enum value"),
    ("protocols", "[drill]", 'protocols = ["quorum"]', "a quorum of two is C"),
    ("arrival", '"two"', 'arrival = "poison"', "Invalid enum value"),
    ("rate", '"two"', 'rate = "-1 /s"', "needs a rate"),
    ("rate", '"two"', 'rate = "1e7 /s"', "at most"),
    ("rate", '"two"', 'rate = "100"', "lacks a unit"),
    ("rate", '"two"', "zipf_skew = -1", "arrival"),
    ("block", '"two"', 'block = "4 KB"', "did you mean"),
    ("block", '"two"', 'block = "500 B"', "multiple of 512"),
    ("block", '"two"', 'block = "2 MiB"', "1 MiB"),
    ("block", '"two"', 'address = "zipfian"', "Invalid enum value"),
    ("block", '"two"', "zipf_skew = 11", "zipf_skew"),
    ("block", '"two"', "time_scale = 0", "time_scale"),
    ("block", '"two"', "time_scale = inf", "time_scale"),
    ("mix", '"two"', "mix = [{share = 1}]", 'missing required key "block"'),
    ("mix", '"two"', 'mix = [{block = "4 KiB", share = 0}]', "share"),
    ("mix", '"two"', 'mix = [{block = "4 KiB", share = inf}]', "share"),
    ("mix", '"two"', 'mix = [{block = "100 B"}]', "multiple of 512"),
    ("mix", '"two"', 'mix = [{blok = "4 KiB"}]', 'did you mean "block"'),
    ("mix", '"two"', "mix = [3]", "a table was expected"),
    ("mix", '"two"', 'mix = "4 KiB"', "Expected `array`"),
    ("miles", '"two"', "miles = [60]", "not among"),
    ("miles", '"two"', "miles = [20, 20.0]", "twice"),
    ("name", "queue_depth = 7", 'name = "one"', "a name of its own"),
    ("name", "queue_depth = 7", 'name = "t/wo"', "letters, digits"),
    ("name", "queue_depth = 7", 'block = "1 KiB"', "set twice|overwrite|missing"),
    ("kills", "[drill]", "kills = -1", "between 0 and 1000"),
    ("miles", "[drill]", "miles = -1", "between 0 and 15 000"),
    ("protocols", "[drill]", 'protocols = ["local"]', "no far site"),
    ("load", "[drill]", 'load = "-1 ms"', "0 s to 1 min"),
    ("load", "[drill]", "queue_depth = 0", "between 1 and 4096"),
]


@pytest.mark.parametrize(("words", "after", "instead", "said"), WRONG)
def test_a_wrong_value_is_refused_with_file_and_line(words, after, instead, said):
    text, number = with_line(words, instead, after)
    refusal = refusal_of(text)
    assert re.search(said, refusal), refusal
    # What is missing, or not TOML, has the line of its table, or of the parser.
    elsewhere = instead in ("zipf_skew = -1", 'block = "1 KiB"')
    assert elsewhere or refusal.startswith(f"p.toml:{number}: "), refusal
    assert refusal.endswith((".", ")"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "p.toml: Object missing required key \"title\"."),
        ("title = 3", "p.toml:1: title: Expected `str`"),
        ('title = "t"\ncell = 3\n[distance]\nmiles = [1]', "p.toml:2: cell"),
        ('title = "t"\ncell = [3]\n[distance]\nmiles = [1]', "p.toml:2: cell.0: a table was expected"),
        ('title = "t"\ncell = []\n[distance]\nmiles = [1]', "p.toml:2: at least one"),
        ('title = "t"\ndistance = 3\n[[cell]]\nname="a"', "p.toml:2: distance: a table was expected"),
        ('title = "t"\n[[cell]]\nname = "a"\nprotocols = ["C"]\n[distance]', "p.toml:5: distance.miles or"),
        ("title = ", "Invalid value"),
        ("title = 3\ntitle = = 4", "line 2"),
        ("title = [" + "[" * 5000, "recursion"),
        ("title = " + "9" * 5000, "digits"),
        ('title = "t"\n[distance]\nmiles = [1]\n[[cell]]\nname = "a"\nprotocols = ["C"]\nrun.rounds = 2',
         'p.toml:4: cell.0.run: unknown key "run"'),
    ],
)  # fmt: skip
def test_a_file_that_is_no_profile_is_refused(text, said):
    assert said in refusal_of(text)


def test_the_line_of_a_size_in_a_table_of_its_own_is_found():
    text = bare("cell").replace("# here", '[[cell.mix]]\nblock = "4 KiB"\n[[cell.mix]]\nblock = "1 B"')
    assert "multiple of 512" in refusal_of(text)
    text = text.replace('"1 B"', '"1 X"')
    number = text.splitlines().index('block = "1 X"') + 1
    assert refusal_of(text).startswith(f"p.toml:{number}: cell.1.mix.1.block")


# --set


@pytest.mark.parametrize(
    ("change", "reach", "value"),
    [
        ("run.rounds=2", lambda p: p.run.rounds, 2),
        ("run.round=100ms", lambda p: p.run.round_ns, 100 * units.NS_PER_MS),
        ('run.round = "100 ms"', lambda p: p.run.round_ns, 100 * units.NS_PER_MS),
        ("lab.link=ferry", lambda p: p.lab.link, "ferry"),
        ("lab.near=/tmp/x=y", lambda p: p.lab.near, "/tmp/x=y"),
        ("distance.miles=[20, 30]", lambda p: p.distance.miles, [20, 30]),
        ("title=Another one", lambda p: p.title, "Another one"),
        ("cell.one.queue_depth=4", lambda p: [cell.queue_depth for cell in p.cell], [4, 2]),
        ("cell.queue_depth=4", lambda p: [cell.queue_depth for cell in p.cell], [4, 4]),
        ('cell.two.protocols=["A"]', lambda p: p.cell[1].protocols, ["A"]),
        ("drill.kills=0", lambda p: p.drill.kills, 0),
    ],
)
def test_a_change_reaches_its_key_and_no_other(change, reach, value):
    changed = parse(TEXT, "p.toml", [change])
    assert reach(changed) == value
    assert digest(changed) != digest(parse(TEXT)) or change.startswith("lab.near")


def test_a_table_the_file_lacks_can_be_set():
    assert parse(bare("run").replace("[run]\n", ""), "p.toml", ["run.rounds=7"]).run.rounds == 7


def test_later_changes_win():
    assert parse(TEXT, "p.toml", ["run.rounds=7", "run.rounds=8"]).run.rounds == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("run.rounds", "write key=value"),
        ("=3", "write key=value"),
        ("run.ronds=3", 'did you mean "rounds"'),
        ("rnu.rounds=3", 'unknown key "rnu" (did you mean "run"?)'),
        ("cell.three.queue_depth=3", 'there is no "three"'),
        ("title.x=3", "not a table's key"),
        ("run=3", "a table was expected"),
        ("run.rounds=x", "Expected `int`"),
        ("run.round=3 sec", 'unit "sec"'),
        ("run.rounds=0", "between 1 and 1000"),
        ("run.rounds=" + "9" * 5000, "Expected `int`"),
        ("run.rounds=" + "[" * 5000, "Expected `int`"),
        ("..=3", "unknown key"),
    ],
)
def test_a_wrong_change_is_refused_and_no_line_of_the_file_is_blamed(change, said):
    refusal = refusal_of(TEXT, [change])
    assert said in refusal
    assert "p.toml:" not in refusal or "p.toml: " in refusal


def test_a_change_inside_what_is_not_a_cell_is_refused():
    assert "there is no" in refusal_of("cell = [3]", ["cell.x.y=1"])


# Distances


def test_kilometres_are_miles_and_come_after_them():
    text = TEXT.replace("miles = [0, 20, 150]", "miles = [0, 20, 150]\nkm = [300]")
    assert parse(text).distance.in_miles() == pytest.approx([0, 20, 150, 186.41136], abs=1e-5)


def test_the_same_distance_in_miles_and_kilometres_is_refused():
    assert "twice" in refusal_of(TEXT.replace("miles = [0, 20, 150]", "miles = [0, 20]\nkm = [32.18688]"))


# Files


@pytest.mark.parametrize("name", ["limit", "nothing-like-it", "no/such/file", "missing.toml", "x" * 5000, "x" * 5000 + ".toml"])
def test_a_profile_that_is_not_there_is_refused(name):
    with pytest.raises(UsageError, match="There is no profile"):
        load(name)


def test_a_misspelt_profile_names_the_nearest():
    with pytest.raises(UsageError, match='did you mean "limits"'):
        load("limts")


def test_a_profile_is_read_by_its_path(tmp_path):
    (tmp_path / "mine.toml").write_text(TEXT)
    assert load(str(tmp_path / "mine.toml")) == parse(TEXT)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"title = \x00", b"\x80"])
def test_a_file_that_is_not_text_is_refused_by_its_name(tmp_path, data):
    path = tmp_path / "mine.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"mine\.toml"):
        load(str(path))


# Digest


@pytest.mark.parametrize(
    "same",
    [
        TEXT + "\n# a remark\n",
        TEXT.replace('"1 s"', '"1000 ms"'),
        TEXT.replace("route_factor = 1.0\n", ""),
        TEXT.replace("[run]\nrounds = 3\n", "[run]\n# three\nrounds = 3\n"),
        TEXT.replace('journal = "32 MiB"', 'journal = "32768 KiB"\nnear = "/a"\nfar = "/b"'),
        TEXT.replace("miles = [20]\n\n[drill]", "miles = [20.0]\n\n[drill]"),
    ],
)
def test_the_digest_stays_when_only_the_words_change(same):
    assert digest(parse(same)) == digest(parse(TEXT))


def test_a_digest_is_sixteen_hex_digits():
    assert len(digest(parse(TEXT))) == 16 and int(digest(parse(TEXT)), 16) >= 0


@pytest.mark.parametrize(
    "other",
    ["lab.link=ferry", "lab.durability=memory", "lab.journal=64 MiB", "lab.volume=2 GiB", "lab.congestion=reno",
     "lab.encryption=tls", "lab.compression=lz4",
     "distance.miles=[0, 20, 151]", "distance.km=[300]", "distance.route_factor=1.3", "distance.equipment=1 us",
     "run.rounds=4", "run.round=2 s", "run.survey_echoes=31", "run.floor_flushes=61", "run.retries=1",
     "run.steal_max=0.1", "cell.one.name=three", 'cell.one.protocols=["C"]', "cell.one.miles=[20]",
     "cell.one.queue_depth=3", "cell.two.rate=101 /s", "cell.one.address=zipf", "cell.one.zipf_skew=0.5",
     "cell.one.block=8 KiB", "cell.one.trace=pgbench", "cell.one.time_scale=2.0", "drill.kills=2", "drill.miles=20",
     'drill.protocols=["A"]', "drill.queue_depth=9", "drill.load=1 ms", "drill.cut=1 ms"],
)  # fmt: skip
def test_the_digest_changes_with_every_value_that_is_measured_by(other):
    assert digest(parse(TEXT, "p.toml", [other])) != digest(parse(TEXT))


# Anything at all

WORDS = some.sampled_from(
    ["title", "reason", "lab", "run", "cell", "drill", "distance", "miles", "km", "name", "protocols", "block", "rate",
     "mix", "share", "round", "rounds", "queue_depth", "arrival", "trace", "near", "journal", "steal_max", "x"]
)  # fmt: skip
VALUES = some.recursive(
    some.booleans() | some.integers() | some.floats() | some.datetimes() | some.text(max_size=5)
    | some.sampled_from(["4 KiB", "1 s", "C", "A", "closed", "poisson", "100 /s", "-1 s", "1e300 TiB", "1e300 s"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def outcome_of(read):
    """A profile that can also be told apart from others, or None when it was refused."""
    try:
        made = read()
    except UsageError as refusal:
        assert str(refusal).startswith(("profile", "--set", "p.toml")), refusal
        return None
    assert isinstance(made, Profile) and digest(made)
    return made


@settings(max_examples=60, deadline=None)
@given(some.dictionaries(WORDS, VALUES), some.lists(some.tuples(WORDS, WORDS, VALUES), max_size=6))
def test_any_tables_are_a_profile_or_refused(tree, grafts):
    base = tomllib.loads(TEXT)
    if grafts:
        for table, key, value in grafts:
            place = base.get(table)
            places = place if isinstance(place, list) else [place]
            for one in places:
                if isinstance(one, dict):
                    one[key] = value
        tree = base
    reader = Reader(TEXT, "profile")

    def read():
        converted = reader.table(tree, Profile, ())
        try:
            made = msgspec.convert(converted, Profile)
        except msgspec.ValidationError as refusal:
            raise UsageError(reader.place(refusal)) from refusal
        profile.check(made, reader)
        return made

    outcome_of(read)


@settings(max_examples=120, deadline=None)
@given(some.data())
def test_any_text_is_a_profile_or_refused(data):
    lines = TEXT.splitlines()
    for _ in range(data.draw(some.integers(1, 4))):
        at = data.draw(some.integers(0, len(lines) - 1))
        line = lines[at]
        kind = data.draw(some.sampled_from(["cut", "swap", "text", "drop", "again"]))
        if kind == "cut":
            lines[at] = line[: data.draw(some.integers(0, len(line)))]
        elif kind == "swap":
            other = data.draw(some.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "text":
            where = data.draw(some.integers(0, len(line)))
            lines[at] = line[:where] + data.draw(some.text(max_size=6)) + line[where:]
        elif kind == "drop":
            lines[at] = ""
        else:
            lines.insert(at, line)
    outcome_of(lambda: parse("\n".join(lines)))


@settings(max_examples=100, deadline=None)
@given(some.text(max_size=30), some.text(max_size=20))
@example("cell.one.mix", "[[[")
@example("cell.mix.block", "3")
@example("title", "\ud800")
def test_any_change_makes_a_profile_or_is_refused(key, value):
    outcome_of(lambda: parse(TEXT, "p.toml", [f"{key}={value}"]))


@settings(max_examples=100, deadline=None)
@given(some.lists(WORDS, min_size=1, max_size=4), some.text(max_size=12))
def test_any_change_of_known_words_makes_a_profile_or_is_refused(words, value):
    outcome_of(lambda: parse(TEXT, "p.toml", [f"{'.'.join(words)}={value}"]))


# [link]

LINKED = TEXT.replace("miles = [0, 20, 150]", "miles = [20, 150]") + '''
[link]
loss = "0.01 %"
rate = "10 Gbit/s"
jitter = "0.1 ms"
mtu = "9000 B"

[link.homeward]
rate = "1gbit"
bursts = {enter = "0.1 %", leave = "25 %"}

[[link.schedule]]
at = "3 s"
extra_rtt = "2 ms"

[[link.schedule]]
at = "5 s"
event = "cut"
'''


def test_a_link_is_what_its_table_says_for_both_ways_and_for_each():
    link = parse(LINKED).link
    assert (link.outward.loss_ratio, link.outward.rate_bits_per_s) == (pytest.approx(1e-4), 10**10)
    assert (link.homeward.loss_ratio, link.homeward.rate_bits_per_s) == (0, 10**9)
    assert link.homeward.bursts.loss_ratio == pytest.approx(0.001 / 0.251)
    assert link.outward.jitter_ns == link.homeward.jitter_ns == 100_000
    assert link.mtu_bytes == 9000
    assert [(change.at_ns, change.event, change.extra_rtt_ns) for change in link.schedule] == [
        (3 * units.NS_PER_S, "set", 2_000_000), (5 * units.NS_PER_S, "cut", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('loss = "0.01 %"', 'loss = "120 %"', 'loss = "120 %"', "link.outward.loss: 1.2 is not a share"),
        ('loss = "0.01 %"', "loss = 0.01", "loss = 0.01", "is not a number with a unit (%, ppm)"),
        ('rate = "10 Gbit/s"', 'rate = "10 Mbyte/s"', 'rate = "10 Mbyte', 'unit "Mbyte/s"'),
        ('jitter = "0.1 ms"', 'jitter = "3 ms"', 'jitter = "3 ms"', "at 20 miles 3.00 ms is more than the delay of"),
        ('mtu = "9000 B"', 'mtu = "100 B"', 'mtu = "100 B"', "link.mtu: 100 bytes"),
        ('rate = "1gbit"', 'loss = "1 %"', "bursts =", "instead of loss, not beside it"),
        ('at = "5 s"', 'at = "2 s"', 'at = "2 s"', "changes come in order of time"),
        ('mtu = "9000 B"', 'lose = "1 %"', 'lose = "1 %"', 'unknown key "lose" (did you mean "loss"?)'),
        ('jitter = "0.1 ms"', 'jitter_shape = "recorded"', "jitter_shape", "goes with a jitter_file"),
    ],
)  # fmt: skip
def test_a_link_that_cannot_be_is_refused_with_its_line(old, new, line, words):
    text = LINKED.replace(old, new)
    with pytest.raises(UsageError) as refused:
        parse(text, "some.toml")
    lines = [number for number, found in enumerate(text.splitlines(), 1) if line in found]
    assert words in str(refused.value)
    assert re.match(r"some\.toml:(\d+): ", str(refused.value)), refused.value
    stated = int(str(refused.value).split(":")[1])
    assert stated in {*lines, *(number - 1 for number in lines)}  # A [[table]] is named by its header.


def test_a_plain_link_is_no_part_of_a_digest_and_any_other_is():
    plain = parse(TEXT)
    assert digest(parse(TEXT + "\n[link]\nseed = 1\n")) == digest(plain)
    assert digest(parse(LINKED)) != digest(plain)
    assert digest(parse(TEXT, changes=["link.loss=1 %"])) != digest(plain)


# What keeps the machine awake.


@pytest.mark.parametrize(
    ("words", "meant"),
    [("true", "spinner"), ("false", "none"), ("qos", "qos"), ('"auto"', "auto"), ("none", "none"), ("spinner", "spinner")],
)
def test_keep_awake_is_a_word_and_the_booleans_it_was_once_go_on_meaning_the_same(words, meant):
    from farwrite.experiment.measure import lab_spec

    made = load("quick", [f"lab.keep_awake={words}"])
    assert made.lab.keep_awake == meant and lab_spec(made, Path()).keep_awake == meant
    if words in ("true", "false"):
        in_file = TEXT.replace('journal = "32 MiB"', f'journal = "32 MiB"\nkeep_awake = {words}')
        assert parse(in_file).lab.keep_awake == meant
    assert digest(made) == digest(load("quick"))  # Of the environment, not of the workload.


def test_keep_awake_is_auto_unless_told_otherwise_and_nothing_else():
    assert load("quick").lab.keep_awake == "auto" and "keep_awake" not in without_defaults(load("quick").lab)
    with pytest.raises(UsageError, match=r"lab.keep_awake: .*'maybe'"):
        load("quick", ["lab.keep_awake=maybe"])
