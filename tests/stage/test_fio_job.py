"""fio job files: what each option becomes, what is bent and says so, and what is refused with its line."""

from pathlib import Path

import pytest

from farwrite.errors import UsageError
from farwrite.fio_job import translate
from farwrite.load_table import joint_load_of
from farwrite.profile import load

JOBS = Path(__file__).parents[1] / "fio"


def job(tmp_path, *options, name="job"):
    path = tmp_path / "my.fio"
    path.write_text(f"[global]\nsize=64m\nruntime=10\n[{name}]\n" + "\n".join(options) + "\n")
    return translate(path)


def cell(tmp_path, *options):
    return job(tmp_path, *options).profile.cell[0]


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.fio")), ids=lambda path: path.stem)
def test_job_files_from_life_become_profiles_that_can_be_drawn(path):
    translated = translate(path)
    assert load(str(path)) == translated.profile
    for table in translated.profile.cell:
        made = joint_load_of(table, translated.profile.lab.volume_bytes)
        assert made.parts and all(part.region_end <= translated.profile.lab.volume_bytes for part in made.parts)


def test_a_database_is_two_jobs_in_one_cell_on_one_file():
    profile = translate(JOBS / "oltp.fio").profile
    (pages_and_log,) = profile.cell
    pages, log = pages_and_log.jobs
    assert (pages.reads, pages.queue_depth, pages.address, pages.zipf_skew) == (0.7, 16, "zipf", 1.0)
    assert (log.flush_every, log.queue_depth, log.region_begin_bytes, log.region_bytes) == (1, 1, 448 << 20, 64 << 20)
    assert [(item.block_bytes, item.share) for item in log.mix] == [(4096, 60), (16384, 30), (65536, 10)]
    assert profile.lab.volume_bytes == 512 << 20 and profile.run.round_ns == 6 * 10**9


def test_copies_have_files_of_their_own_and_a_stonewall_begins_another_cell():
    profile = translate(JOBS / "vms.fio").profile
    vms, backup = profile.cell
    loads = joint_load_of(vms, profile.lab.volume_bytes).parts
    assert len(loads) == 17 and len({part.region_begin_bytes for part in loads}) == 17
    assert {part.region_bytes for part in loads} == {32 << 20}
    assert (backup.region_begin_bytes, backup.think_ns, backup.think_every) == (17 * 32 << 20, 500_000, 8)
    assert (backup.name, backup.reads, backup.block_bytes or backup.mix) == ("backup", 1.0, backup.block_bytes)


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (["rw=randwrite"], "address", "shuffle"),
        (["rw=randwrite", "norandommap"], "address", "uniform"),
        (["rw=write"], "address", "sequential"),
        (["rw=write:8k", "bs=4k"], "stride_bytes", 12288),
        (["rw=randwrite", "random_distribution=pareto:0.3"], "pareto_share", 0.3),
        (["rw=randwrite", "random_distribution=normal:20"], "normal_deviation", 0.2),
        (["rw=randread"], "reads", 1.0),
        (["rw=randtrim"], "trims", 1.0),
        (["rw=randrw"], "reads", 0.5),
        (["rw=randrw", "rwmixwrite=30"], "reads", 0.7),
        (["rw=write", "iodepth=8", "ioengine=libaio"], "queue_depth", 8),
        (["rw=write", "iodepth=8", "ioengine=psync"], "queue_depth", 1),
        (["rw=write", "rate_iops=500"], "arrival", "fixed"),
        (["rw=write", "rate_iops=500", "rate_process=poisson"], "arrival", "poisson"),
        (["rw=write", "rate=4m", "bs=8k"], "rate_per_s", 512.0),
        (["rw=randrw", "rwmixread=75", "rate_iops=300,200"], "rate_per_s", 400.0),
        (["rw=write", "thinktime=20"], "think_ns", 20_000),
        (["rw=write", "fsync=32"], "flush_every", 32),
        (["rw=write", "buffer_compress_percentage=75"], "compress_ratio", 4.0),
        (["rw=write", "dedupe_percentage=80"], "dedupe_ratio", pytest.approx(5.0)),
    ],
)  # fmt: skip
def test_an_option_becomes_its_key(tmp_path, options, key, value):
    assert getattr(cell(tmp_path, *options), key) == value


def test_sizes_are_fixed_ranges_or_splits_for_each_operation(tmp_path):
    def blocks(mix):
        return [(item.block_bytes, item.share) for item in mix]

    table = cell(tmp_path, "rw=randrw", "bssplit=4k/50:64k/,8k")
    assert blocks(table.read_mix) == [(4096, 50), (65536, 50)]
    assert blocks(table.mix) == [(8192, 100)]
    assert [size for size, _ in blocks(cell(tmp_path, "rw=write", "bsrange=4k-16k").mix)] == [4096, 8192, 12288, 16384]
    assert blocks(cell(tmp_path, "rw=write", "bs=1m").mix) == [(1 << 20, 1.0)]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("iodpeth=4", r'my.fio:5: unknown option "iodpeth" \(did you mean "iodepth"'),
        ("rw=randwirte", r'my.fio:5: .*unknown value "randwirte" \(did you mean "randwrite"'),
        ("rw=trimwrite", "my.fio:5: .*cannot be drawn"),
        ("rw=randwrite:8", "my.fio:5: .*cannot be drawn"),
        ("zonemode=zbd", "my.fio:5: .*not emulated"),
        ("read_iolog=x", "my.fio:5: .*key trace"),
        ("bs=2m", "my.fio:5: .*1 MiB"),
        ("bs=large", "my.fio:5: .*not a size"),
        ("bssplit=4k/50:8k/60", "my.fio:5: .*add up to 110"),
        ("size=50%", "my.fio:5: .*bytes"),
        ("iodepth=0", "my.fio:5: .*between 1 and 4096"),
        ("ioengine=libiao", 'my.fio:5: .*did you mean "libaio"'),
        ("rate_process=possion", "my.fio:5: .*known: linear, poisson"),
        ("runtime=soon", "my.fio:5: .*not a time"),
        ("percentage_random=50", "my.fio:5: .*two jobs"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_line(tmp_path, option, sentence):
    options = [option] if option.startswith(("rw", "random")) else [option, "rw=randwrite"]
    with pytest.raises(UsageError, match=sentence):
        job(tmp_path, *options)


def test_a_rate_and_time_to_think_are_refused_together(tmp_path):
    with pytest.raises(UsageError, match=r"my.fio:6: thinktime=5: a job with a rate"):
        job(tmp_path, "rate_iops=5", "thinktime=5")


def test_what_is_bent_is_said_once_with_every_place(tmp_path):
    path = tmp_path / "two.fio"
    path.write_text("[global]\nsize=1m\ndirect=1\ngroup_reporting\n[a]\nfsync=1\nrw=write\n[b]\nstonewall\nrw=write\nramp_time=3\n")
    said = translate(path).lines()
    assert said[0] == f"irrelevant here: group_reporting ({path}:4)"
    assert sum("direct=1" in line for line in said) == 1
    assert any("fsync=1" in line and "a flush waits" in line for line in said)
    assert any("stonewall" in line and "interleaved" in line for line in said)
    assert any("no runtime" in line for line in said)


def test_changes_of_the_command_line_are_made_to_the_translated_profile():
    changed = load(str(JOBS / "oltp.fio"), ['run.round="100 ms"', "distance.miles=[0]", 'cell.protocols=["A"]'])
    assert (changed.run.round_ns, changed.distance.miles, changed.cell[0].protocols) == (10**8, [0.0], ["A"])


def test_an_option_of_the_environment_and_an_include_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTH", "7")
    (tmp_path / "inc").write_text("[global]\nioengine=libaio\niodepth=${DEPTH}\n")
    path = tmp_path / "a.fio"
    path.write_text("include inc\nsize=8m\n[a]\nrw=write ; a remark\n")
    assert translate(path).profile.cell[0].queue_depth == 7
    path.write_text("[a]\nsize=8m\niodepth=${NO_SUCH_DEPTH}\n")
    with pytest.raises(UsageError, match=r"a.fio:3: the environment has no variable NO_SUCH_DEPTH"):
        translate(path)
    (tmp_path / "loop.fio").write_text("include loop.fio\n")
    with pytest.raises(UsageError, match="include each other"):
        translate(tmp_path / "loop.fio")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("rw=write\n", "before the first"), ("[global]\nrw=write\n", "no job"), ("[a]\nrw=write\n", "no size")],
)
def test_a_file_without_a_job_is_refused(tmp_path, text, sentence):
    path = tmp_path / "none.fio"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        translate(path)
