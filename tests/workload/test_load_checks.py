"""The keys of a load: what they become, what a job takes from its cell, and what is refused with its line."""

import math

import pytest

from farwrite.base.errors import UsageError
from farwrite.experiment.cells import cells_of
from farwrite.workload.catalog import load, shipped
from farwrite.workload.load_checks import joint_load_of
from farwrite.workload.plan import draw_jobs
from farwrite.workload.profile import parse
from farwrite.workload.tables import digest

HEAD = 'title = "t"\n[distance]\nmiles = [0]\n[lab]\nvolume = "64 MiB"\n[[cell]]\nname = "one"\nprotocols = ["C"]\n'
MIB = 1 << 20


def drawn_from(keys):
    profile = parse(HEAD + keys, "p.toml")
    return joint_load_of(profile.cell[0], profile.lab.volume_bytes)


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        ('address = "hot-spot"\nhot_share = 0.9\nhot_space = 0.1', "bands", ((0.9, 0.1), (pytest.approx(0.1), 0.9))),
        ('address = "bands"\nbands = [{share = 60, space = 10}, {share = 40, space = 90}]', "bands", ((60, 10), (40, 90))),
        ('address = "sequential"\nstreams = 4\nstride = "1 MiB"', "stride_bytes", MIB),
        ("reads = 0.7\ntrims = 0.1", "read_share", 0.7),
        ('read_mix = [{block = "64 KiB"}]\nreads = 0.5', "read_sizes", ((65536, 1.0),)),
        ("flush_every = 3", "flush_every", 3),
        ('think = "2 ms"\nthink_at_random = true', "think_ns", 2_000_000),
        ('region_begin = "8 MiB"\nregion = "16 MiB"', "region_end", 24 * MIB),
        ("compress_ratio = 2.0", "compress_ratio", 2.0),
        ('arrival = "poisson"\nphases = [{name = "a", lasts = "1 s", rate = "100 /s"}, '
         '{name = "b", lasts = "1 s", rate = "100 /s", rate_end = "300 /s"}]', "rate_per_s", 150.0),
    ],
)  # fmt: skip
def test_a_key_becomes_what_is_drawn(keys, field, value):
    assert getattr(drawn_from(keys), field) == value


def test_a_burst_is_two_stretches_and_a_day_is_many():
    burst = drawn_from('arrival = "fixed"\nrate = "900 /s"\nburst = {on = "10 ms", off = "90 ms", rate_off = "5 /s"}').stretches
    assert [(s.lasts_ns, s.begin_per_s, s.end_per_s) for s in burst] == [(10**7, 900, 900), (9 * 10**7, 5, 5)]
    day = drawn_from('arrival = "poisson"\nrate = "1000 /s"\ndiurnal = {period = "24 s", least = 0.2}').stretches
    assert sum(s.lasts_ns for s in day) == 24 * 10**9
    assert (day[0].begin_per_s, day[48].begin_per_s) == (pytest.approx(200), pytest.approx(1000))
    for part, stretch in enumerate(day):
        assert stretch.begin_per_s == pytest.approx(1000 * (0.6 - 0.4 * math.cos(2 * math.pi * part / 96)))
    at_random = drawn_from('arrival = "poisson"\nrate = "9 /s"\nburst = {on = "1 s", off = "1 s", at_random = true}')
    assert at_random.stretches_at_random


JOBS = """
reads = 0.5
arrival = "poisson"
rate = "1000 /s"
[[cell.jobs]]
name = "vm"
count = 17
queue_depth = 4
share = 2
region = "34 MiB"
[[cell.jobs]]
name = "log"
share = 6
reads = 0.0
address = "sequential"
[[cell.jobs]]
name = "backup"
arrival = "closed"
block = "1 MiB"
"""


def test_a_job_is_as_its_cell_but_for_what_it_says_itself():
    made = drawn_from(JOBS)
    vms, log, backup = made.parts[:17], made.parts[17], made.parts[18]
    assert {vm.rate_per_s for vm in vms} == {1000 * 2 / 40} and log.rate_per_s == 1000 * 6 / 40
    assert backup.rate_per_s is None and backup.size_bytes_max == MIB
    assert {vm.read_share for vm in vms} == {0.5} and log.read_share == 0.0
    assert [vm.region_begin_bytes for vm in vms] == [2 * MIB * place for place in range(17)]
    assert made.queue_depth == 17 * 4 + 2
    assert cells_of(parse(HEAD + JOBS))[0].queue_depth == 70 and cells_of(parse(HEAD + JOBS))[0].arrival == "jobs"


def test_copies_that_are_not_apart_share_their_region():
    made = drawn_from('[[cell.jobs]]\nname = "a"\ncount = 3\napart = false\nregion = "8 MiB"\n')
    assert {(part.region_begin_bytes, part.region_bytes) for part in made.parts} == {(0, 8 * MIB)}


def test_jobs_of_a_profile_can_be_drawn():
    plan, bounds = draw_jobs(drawn_from(JOBS), 1, [10] * 19)
    assert bounds[-1] == plan.size.size == 190


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("read = 0.5", r'p.toml:9: .*unknown key "read" \(did you mean "reads"'),
        ("reads = 1.5", "p.toml:9: .*reads is a share"),
        ("reads = 0.6\ntrims = 0.6", "p.toml:9: .*more than everything"),
        ('think = "1 ms"\narrival = "fixed"\nrate = "5 /s"', "p.toml:9: .*closed loop"),
        ('burst = {on = "1 ms"}\narrival = "fixed"\nrate = "5 /s"', "p.toml:9: .*time on and a time off"),
        ('burst = {on = "1 ms", off = "1 ms"}', "p.toml:9: .*open loop"),
        ('phases = [{name = "a", lasts = "1 s", rate = "5 /s"}]', "p.toml:9: .*open loop"),
        ('region = "65 MiB"', "p.toml:9: .*not more than the volume"),
        ('region_begin = "60 MiB"\nregion = "8 MiB"', "p.toml:10: .*end within the volume"),
        ('address = "bands"', "p.toml: .*bands: none given|p.toml:6: .*bands: none given"),
        ("compress_ratio = 0.5", "p.toml:9: .*1 to 1000"),
        ("count = 3", "p.toml:9: .*for a job"),
        ("streams = 5000", "p.toml:9: .*streams"),
        ('[[cell.jobs]]\nname = "a"\nmiles = [0]', r'p.toml:11: cell "one", job "a": miles is for the whole cell'),
        ('[[cell.jobs]]\nname = "a"\n[[cell.jobs]]\nname = "a"', "name of its own"),
        ('[[cell.jobs]]\nname = "a"\ncount = 300', "p.toml:11: .*count must lie"),
        ('[[cell.jobs]]\nname = "a"\nquue_depth = 3', r'p.toml:11: .*did you mean "queue_depth"'),
        ('[[cell.jobs]]\nname = "a"\narrival = "poisson"', "p.toml:11: .*needs a rate"),
        ('arrival = "fixed"\nrate = "400000 /s"\nflush_every = 1\n[run]\nround = "60 s"', "too many for a plan"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_is_refused_with_its_line(keys, sentence):
    with pytest.raises(UsageError, match=sentence):
        drawn_from(keys)


def test_what_is_offered_is_writes():
    mixed = 'arrival = "poisson"\nrate = "100 /s"\nreads = 0.6\ntrims = 0.1\nflush_every = 2\n'
    assert cells_of(parse(HEAD + mixed))[0].offered_per_s == pytest.approx(30.0)
    assert cells_of(parse(HEAD + JOBS))[0].offered_per_s is None
    assert cells_of(parse(HEAD + mixed.replace("0.6", "0.9")))[0].offered_per_s is None


def test_more_rows_than_a_report_can_hold_are_refused():
    many = "".join(f'[[cell.jobs]]\nname = "j{place}"\n' for place in range(65))
    with pytest.raises(UsageError, match="give those that are alike a count"):
        parse(HEAD + many)


def test_a_digest_does_not_know_of_keys_that_are_not_used():
    plain = parse(HEAD)
    assert digest(plain) == digest(parse(HEAD + "reads = 0.0\nstreams = 1\nburst = {}\n"))
    assert digest(plain) != digest(parse(HEAD + "reads = 0.1\n"))


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_profile_argues_its_numbers(name):
    assert len(load(name).reason) > 80
