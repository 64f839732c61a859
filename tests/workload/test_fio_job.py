"""fio job files: what each option becomes, what is bent and says so, and what is refused with its line."""

from pathlib import Path

import pytest

from farwrite.base.errors import UsageError
from farwrite.workload.catalog import load
from farwrite.workload.fio import translate
from farwrite.workload.load_checks import joint_load_of

JOBS = Path(__file__).parent / "fio"


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
    assert len(loads) == 2 * 17 and len({part.region_begin_bytes for part in loads}) == 17  # Reads and writes have a rate each.
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
    (tmp_path / "inc").write_text("ioengine=libaio\niodepth=${DEPTH}\n")
    path = tmp_path / "a.fio"
    path.write_text("[global]\ninclude inc\nsize=8m\n[a]\nrw=write ; a remark\n")
    assert translate(path).profile.cell[0].queue_depth == 7
    path.write_text("[a]\nsize=8m\niodepth=${NO_SUCH_DEPTH}\n")
    with pytest.raises(UsageError, match=r"a.fio:3: the environment has no variable NO_SUCH_DEPTH"):
        translate(path)
    (tmp_path / "loop.inc").write_text("include loop.inc\n")
    path.write_text("[a]\nsize=8m\ninclude loop.inc\n")
    with pytest.raises(UsageError, match="include each other"):
        translate(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rw=write\n", "before the first"),
        ("include other.inc\n[a]\nrw=write\n", "before the first"),
        ("[global]\nrw=write\n", "no job"),
        ("[a]\nrw=write\n", "no size"),
        ("[]\nrw=write\n", "is no section"),
        ("[a\nrw=write\n", "is no section"),
    ],
)
def test_a_file_without_a_job_is_refused(tmp_path, text, sentence):
    path = tmp_path / "none.fio"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        translate(path)


# The order in which options were last set, and what a section is


def loads_of(tmp_path, text, name="job.fio"):
    """The loads of all cells of a job file."""
    path = tmp_path / name
    path.write_text(text)
    translated = translate(path)
    return [part for table in translated.profile.cell for part in joint_load_of(table, translated.profile.lab.volume_bytes).parts]


def said_of(tmp_path, text):
    path = tmp_path / "job.fio"
    path.write_text(text)
    return translate(path).lines()


def regions(loads):
    return [(part.region_begin_bytes >> 20, (part.region_end - part.region_begin_bytes) >> 20) for part in loads]


@pytest.mark.parametrize(
    ("theirs", "own", "read"),
    [
        ("blocksize=32k", "bs=16k", lambda load: load.sizes[0][0] == 16384),
        ("bs=32k", "blocksize=16k", lambda load: load.sizes[0][0] == 16384),
        ("readwrite=read", "rw=randwrite", lambda load: (load.address, load.read_share) == ("shuffle", 0.0)),
        ("rw=randwrite\nfileoffset=32m", "offset=16m", lambda load: load.region_begin_bytes == 16 << 20),
        ("rw=randrw\nrwmixread=80", "rwmixwrite=40", lambda load: load.read_share == 0.6),
        ("rw=randrw\nrwmixwrite=80", "rwmixread=40", lambda load: load.read_share == 0.4),
        ("rw=randrw", "rwmixwrite=80\nrwmixread=25", lambda load: load.read_share == 0.25),
        ("rw=randrw", "rwmixread=25\nrwmixwrite=80", lambda load: load.read_share == pytest.approx(0.2)),
    ],
)
def test_of_two_lines_that_set_the_same_the_later_counts_however_it_is_spelt(tmp_path, theirs, own, read):
    (load,) = loads_of(tmp_path, f"[global]\nsize=32m\n{theirs}\n[a]\n{own}\n")
    assert read(load)


def test_an_alias_in_the_globals_does_not_outlast_a_jobs_own_runtime(tmp_path):
    path = tmp_path / "job.fio"
    path.write_text("[global]\nsize=1m\nrw=write\ntimeout=500\n[a]\nruntime=10\n")
    assert translate(path).profile.run.round_ns == 2 * 10**9


@pytest.mark.parametrize(
    ("lines", "every", "note"),
    [
        ("fsync=1\nfdatasync=16", 1, ""),
        ("fdatasync=16\nfsync=1", 1, ""),
        ("fdatasync=2\nfsync=8", 2, ""),
        ("fsync=3\nfdatasync=2", 2, "multiples of the smaller"),
        ("fsync=0\nfdatasync=4", 4, ""),
    ],
)
def test_fsync_and_fdatasync_do_not_replace_each_other(tmp_path, lines, every, note):
    text = f"[a]\nrw=write\nsize=1m\n{lines}\n"
    (load,) = loads_of(tmp_path, text)
    assert load.flush_every == every
    assert any("multiples of the smaller" in line for line in said_of(tmp_path, text)) == bool(note)


def test_reads_have_no_flushes_and_a_mix_says_that_fio_repeats_them(tmp_path):
    (reads,) = loads_of(tmp_path, "[a]\nrw=read\nsize=1m\nfsync=1\n")
    assert reads.flush_every == 0
    assert any("repeats it before each read" in line for line in said_of(tmp_path, "[a]\nrw=randrw\nsize=1m\nfsync=4\n"))


def test_sections_are_named_by_all_that_is_between_the_brackets_and_global_is_a_beginning(tmp_path):
    text = "[global disk]\nrw=write\nsize=2m\n[a [b] c] ; a remark\nbs=8k\n[globals]\nbs=64k\n[d]#another\n"
    path = tmp_path / "job.fio"
    path.write_text(text)
    (cell,) = translate(path).profile.cell
    assert [(job.name, job.mix[0].block_bytes) for job in cell.jobs] == [("a-b-c", 8192), ("d", 65536)]


def test_a_remark_begins_anywhere_and_names_of_options_are_small(tmp_path):
    (load,) = loads_of(tmp_path, "[a]\nrw=write;x\nsize=2m#y\n")
    assert load.region_bytes == 2 << 20
    with pytest.raises(UsageError, match=r'unknown option "BS" \(did you mean "bs"'):
        loads_of(tmp_path, "[a]\nBS=8k\nsize=1m\n")


def test_a_section_within_an_included_file_is_not_run_and_the_note_says_so(tmp_path):
    (tmp_path / "more.inc").write_text("bs=64k\n[x]\nbs=32k\n")
    text = "[global]\nrw=write\nsize=2m\n[a]\ninclude more.inc\n[b]\nbs=8k\n"
    assert [(part.name, part.sizes[0][0]) for part in loads_of(tmp_path, text)] == [("a", 4096), ("b", 8192)]
    assert any("[x]" in line and "left out" in line and "more.inc:2" in line for line in said_of(tmp_path, text))


def test_new_group_only_concerns_the_report_and_a_stonewall_waits(tmp_path):
    path = tmp_path / "job.fio"
    path.write_text("[global]\nsize=1m\nrw=write\n[a]\n[b]\nnew_group\n[c]\nstonewall\n")
    assert [[job.name for job in cell.jobs] or [cell.name] for cell in translate(path).profile.cell] == [["a", "b"], ["c"]]


# Files


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("filename=f\nfilesize=32m\noffset=24m", [(24, 8)]),
        ("rw=write\nfilename=f\nfilesize=32m\nsize=8m\noffset=4m", [(4, 8)]),
        ("filename=f\nfilesize=32m\nsize=8m", [(0, 32)]),  # A random job goes over the whole file.
        ("filesize=32m\nsize=25%", [(0, 8)]),
        ("filesize=32m\nsize=50%\noffset=24m", [(24, 8)]),
        ("nrfiles=4\nfilesize=8m", [(0, 32)]),
        ("nrfiles=4\nsize=8m", [(0, 8)]),
        ("nrfiles=3\nfilename=f\nsize=8m", [(0, 8)]),
        ("rw=write\nnrfiles=4\nfilesize=16m\nsize=8m", [(0, 8)]),
        ("nrfiles=2\nfilesize=16m\noffset=8m", [(0, 16)]),
        ("filename=f:g\nsize=8m", [(0, 8)]),
        ("size=8m\nnumjobs=2", [(0, 8), (8, 8)]),
        ("filename=f\nsize=8m\nnumjobs=2", [(0, 8), (0, 8)]),
        ("directory=/x:/y\nsize=8m\nnumjobs=2", [(0, 8), (8, 8)]),
        ("directory=/x:/y\nfilename=f\nsize=8m\nnumjobs=2", [(0, 8), (0, 8)]),
        ("filename_format=s.$filenum\nsize=8m\nnumjobs=3", [(0, 8)] * 3),
        ("filename_format=s.$jobnum\nsize=8m\nnrfiles=2", [(0, 4)]),  # The same file twice, each time half of it.
        ("filename_format=s.$jobnum\nsize=8m\nnumjobs=3", [(0, 8), (8, 8), (16, 8)]),
        ("filename=f\nsize=8m\noffset_increment=0\nnumjobs=2", [(0, 8), (0, 8)]),
        ("filename=f\nsize=8m\noffset_increment=8m\nnumjobs=2", [(0, 8), (8, 8)]),
        ("filename=f\nsize=8m\noffset_increment=4m\nnumjobs=3", [(0, 8), (4, 8), (8, 8)]),
        ("filename=f\nfilesize=16m\noffset_increment=4m\nnumjobs=2", [(0, 16), (4, 12)]),
        ("size=8m\noffset_increment=4m\nnumjobs=2", [(0, 8), (12, 8)]),
    ],
)
def test_regions_are_those_of_the_files_that_fio_would_use(tmp_path, lines, expected):
    loads = loads_of(tmp_path, f"[a]\nrw=randwrite\n{lines}\n")
    assert regions(loads) == expected


def test_two_jobs_share_a_file_when_directory_and_name_are_the_same(tmp_path):
    jobs = "[a]\ndirectory=/x\n[b]\ndirectory=/y\n[c]\ndirectory=/x/\n"
    text = f"[global]\nrw=write\nfilename=f\nsize=8m\n{jobs}"
    assert regions(loads_of(tmp_path, text)) == [(0, 8), (8, 8), (0, 8)]
    assert any("directory=/y" in line and "earlier section" in line for line in said_of(tmp_path, text))
    assert regions(loads_of(tmp_path, f"[global]\nrw=write\nsize=8m\n{jobs}")) == [(0, 8), (8, 8), (16, 8)]
    assert regions(loads_of(tmp_path, "[global]\nrw=write\nsize=8m\n[a]\n[b]\nfilename=a.0.0\n")) == [(0, 8), (0, 8)]


def test_several_files_are_written_in_turn_or_one_after_the_other(tmp_path):
    common = "[a]\nrw=write\nsize=8m\nnrfiles=4\n"
    assert [part.streams for part in loads_of(tmp_path, common)] == [4]
    assert [part.streams for part in loads_of(tmp_path, common + "file_service_type=sequential\n")] == [1]
    for line in ("file_service_type=random", "file_service_type=roundrobin:8", "openfiles=2"):
        assert any(line in note for note in said_of(tmp_path, common + line + "\n")), line
    assert any("nrfiles=4" in note for note in said_of(tmp_path, common.replace("rw=write", "rw=randwrite")))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("size=0", "nothing would be issued"),
        ("io_size=64m", "how much is transferred"),
        ("filesize=1m-2m", "drawn at random"),
        ("size=4m\nopendir=/x", "not known here"),
        ("size=4m\nlockfile=exclusive", "lock"),
        ("size=4m\nfile_append=1", "give the offset"),
        ("size=4m\nfill_device=1", "device's size"),
        ("size=4m\nwait_for=b", "stonewall"),
        ("size=4m\ncreate_only=1", "nothing would be written"),
        ("filename=f\nfilesize=4m\noffset=4m", "less than the largest block"),
    ],
)
def test_what_leaves_no_region_or_another_one_is_refused_with_its_line(tmp_path, line, sentence):
    with pytest.raises(UsageError, match=rf"job.fio:\d: .*{sentence}"):
        loads_of(tmp_path, f"[a]\nrw=write\n{line}\n")


# Units and sizes


@pytest.mark.parametrize(
    ("value", "base", "size"),
    [("64k", 1024, 65536), ("64kb", 1024, 65536), ("64ki", 1024, 65536), ("0x1000", 1024, 4096), ("64KiB", 1024, 64000),
     ("64k", 1000, 64000), ("64kb", 1000, 64000), ("64kib", 1000, 65536)],
)  # fmt: skip
def test_kilo_is_what_fio_takes_it_for(tmp_path, value, base, size):
    before, after = f"kb_base={base}\nbs={value}", f"bs={value}\nkb_base={base}"
    for lines in (before, after):
        assert loads_of(tmp_path, f"[a]\nrw=write\nsize=16m\n{lines}\n")[0].sizes[0][0] == size


def test_a_kb_base_holds_for_the_lines_of_its_own_section(tmp_path):
    text = "[global]\nrw=write\nsize=16m\nbs=64k\n[a]\nkb_base=1000\nsize=2m\n"
    (load,) = loads_of(tmp_path, text)
    assert (load.sizes[0][0], load.region_bytes) == (65536, 2_000_000 // 4096 * 4096)


def test_sizes_that_are_no_sectors_are_rounded_up_with_a_note_and_of_kb_base_refused(tmp_path):
    text = "[a]\nrw=write\nsize=1MiB\nbs={}\n"
    for value, size in (("1100", 1536), ("3KiB", 3072), ("100", 512)):
        assert loads_of(tmp_path, text.format(value))[0].sizes == ((size, 1.0),)
        assert any(f"bs={value}" in line and "rounded up" in line for line in said_of(tmp_path, text.format(value)))
    assert loads_of(tmp_path, text.format("4k"))[0].region_bytes == 999_424
    with pytest.raises(UsageError, match="bs=2k: with kb_base=1000, 2k is 2000 bytes"):
        loads_of(tmp_path, text.format("2k\nkb_base=1000"))


def test_what_is_not_given_for_an_operation_stays_at_its_default(tmp_path):
    def sizes(kind, bs):
        (load,) = loads_of(tmp_path, f"[a]\nrw={kind}\nsize=16m\n{bs}\n")
        own = {"randread": load.read_sizes, "randwrite": load.sizes, "randtrim": load.trim_sizes}[kind]
        return [size for size, _ in own or load.sizes]

    assert sizes("randtrim", "bs=8k,32k,") == [4096] and sizes("randtrim", "bs=8k,32k") == [32768]
    assert sizes("randwrite", "bs=8k,") == [4096] and sizes("randwrite", "bs=8k") == [8192]
    assert sizes("randread", "bs=,8k") == [4096] and sizes("randwrite", "bs=,8k") == [8192]
    assert sizes("randwrite", "bsrange=8k-8k,\nbs=64k") == [65536]
    assert sizes("randread", "bsrange=8k-8k,\nbs=64k") == [8192]


def test_a_direction_that_a_later_line_leaves_out_keeps_what_an_earlier_one_gave(tmp_path):
    def sizes(theirs, own):
        (load,) = loads_of(tmp_path, f"[global]\nrw=randrw\nsize=16m\n{theirs}\n[a]\n{own}\n")
        return [mix[0][0] for mix in (load.read_sizes or load.sizes, load.sizes)]

    assert sizes("bs=,8k", "bs=16k,") == [16384, 8192]
    assert sizes("bs=32k", "bs=,8k") == [32768, 8192]
    assert sizes("bs=32k,64k", "bs=8k") == [8192, 8192]
    assert sizes("bsrange=8k-8k", "bsrange=,16k-16k") == [8192, 16384]
    reads, writes = loads_of(tmp_path, "[global]\nrate_iops=10,20\n[a]\nrw=randrw\nsize=16m\nrate_iops=,50\n")
    assert (reads.rate_per_s, writes.rate_per_s) == (10.0, 50.0)


def test_a_later_range_of_one_size_takes_a_splits_place(tmp_path):
    text = "[global]\nbssplit=4k/50:16k/50\n[a]\nrw=write\nsize=16m\n{}\n"
    assert loads_of(tmp_path, text.format("bsrange=8k-8k"))[0].sizes == ((8192, 1.0),)
    assert len(loads_of(tmp_path, text.format("bs=8k"))[0].sizes) == 2
    with pytest.raises(UsageError, match="after bssplit"):
        loads_of(tmp_path, text.format("bsrange=4k-8k"))


def test_the_end_of_a_range_has_the_share_that_lies_beyond_the_last_multiple(tmp_path):
    (load,) = loads_of(tmp_path, "[a]\nrw=write\nsize=16m\nbsrange=4k-18k\n")
    assert load.sizes == ((4096, 1.0), (8192, 1.0), (12288, 1.0), (16384, 1.0), (18432, 0.5))


NUMBERS = ("size", "bs", "offset", "filesize", "rate", "rate_iops", "runtime", "thinktime", "iodepth", "fsync")


@pytest.mark.parametrize("option", NUMBERS)
@pytest.mark.parametrize("value", ["9" * 400, "1e999", "nan", "-1", "0x" + "f" * 300, "1" * 5000])
def test_a_number_of_any_length_is_refused_with_its_line(tmp_path, option, value):
    with pytest.raises(UsageError, match=r"job.fio:4: ") as refused:
        loads_of(tmp_path, f"[a]\nrw=write\nsize=1m\n{option}={value}\n")
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


def test_a_fraction_is_refused_because_fio_reads_only_what_stands_before_the_point(tmp_path):
    with pytest.raises(UsageError, match="whole numbers only"):
        loads_of(tmp_path, "[a]\nrw=write\nsize=1.5m\n")


# Rates


def test_reads_and_writes_have_a_rate_each_whatever_the_mix_is(tmp_path):
    text = "[a]\nrw=randrw\nrwmixread=90\nsize=16m\nbs=4k,8k\niodepth=4\nioengine=libaio\nfsync=2\n"
    reads, writes = loads_of(tmp_path, text + "rate_iops=30,70\n")
    assert (reads.name, reads.rate_per_s, reads.read_share, reads.sizes, reads.flush_every) == ("a-reads", 30, 1, ((4096, 1),), 0)
    assert (writes.name, writes.rate_per_s, writes.read_share) == ("a-writes", 70, 0)
    assert (writes.sizes, writes.flush_every) == (((8192, 1),), 2)
    assert regions([reads, writes]) == [(0, 16), (0, 16)]
    reads, writes = loads_of(tmp_path, text + "rate=400k\n")
    assert (reads.rate_per_s, writes.rate_per_s) == (100.0, 50.0)


def test_a_direction_without_a_rate_is_a_closed_loop(tmp_path):
    reads, writes = loads_of(tmp_path, "[a]\nrw=randrw\nsize=16m\nrate_iops=,20\niodepth=3\nioengine=libaio\n")
    assert (reads.arrival, reads.rate_per_s, reads.queue_depth) == ("closed", None, 3)
    assert (writes.arrival, writes.rate_per_s) == ("fixed", 20.0)
    reads, writes = loads_of(tmp_path, "[a]\nrw=randrw\nsize=16m\nrate_iops=20,\n")
    assert (reads.rate_per_s, writes.arrival) == (20.0, "closed")


def test_rate_and_rate_iops_of_one_direction_exclude_each_other(tmp_path):
    for lines in ("rate_iops=10\nrate=1m", "rate=1m\nrate_iops=,10", "rate=1m,1m,\nrate_iops=10,"):
        with pytest.raises(UsageError, match="exclude each other"):
            loads_of(tmp_path, f"[a]\nrw=write\nsize=16m\n{lines}\n")
    reads, writes = loads_of(tmp_path, "[a]\nrw=randrw\nsize=16m\nrate=40k,\nrate_iops=,5,\n")
    assert (reads.rate_per_s, writes.rate_per_s) == (10.0, 5.0)
    (load,) = loads_of(tmp_path, "[a]\nrw=write\nsize=16m\nrate=0\nrate_iops=5\n")
    assert load.rate_per_s == 5.0


def test_of_several_sizes_a_rate_in_ios_counts_bytes_of_the_smallest_as_in_fio(tmp_path):
    (load,) = loads_of(tmp_path, "[a]\nrw=write\nsize=16m\nrate_iops=300\nbssplit=4k/50:8k/50\n")
    assert load.rate_per_s == pytest.approx(300 * 4096 / 6144)
    (load,) = loads_of(tmp_path, "[a]\nrw=write\nsize=16m\nrate=300k\nbssplit=4k/50:8k/50\n")
    assert load.rate_per_s == pytest.approx(50)


def test_a_rate_that_limits_nothing_says_so(tmp_path):
    for line in ("rate_iops=10,", "rate=100g"):
        text = f"[a]\nrw=write\nsize=16m\n{line}\n"
        assert loads_of(tmp_path, text)[0].arrival == "closed"
        assert any(line in note for note in said_of(tmp_path, text))


# Options that are passed over


@pytest.mark.parametrize(
    "line",
    ["iodepth_low=1", "iodepth_batch=4", "iodepth_batch_submit=4", "iodepth_batch_complete=4", "iodepth_batch_complete_max=8",
     "serialize_overlap=1", "verify_backlog=8", "exitall", "steadystate=iops:10%", "prio=3", "cgroup_weight=200",
     "dedupe_working_set_percentage=10"],
)  # fmt: skip
def test_what_changes_order_or_concurrency_is_approximated_and_never_called_irrelevant(tmp_path, line):
    said = said_of(tmp_path, f"[a]\nrw=randwrite\nsize=16m\niodepth=16\nioengine=libaio\n{line}\n")
    assert not any(note.startswith("irrelevant") for note in said)
    assert sum(note.startswith("approximated") and line.partition("=")[2] in note for note in said) >= 1


def test_every_option_of_fio_is_known(tmp_path):
    import shutil
    import subprocess

    from farwrite.workload.fio.options import UNDERSTOOD
    from farwrite.workload.fio.parse import ALIASES
    from farwrite.workload.fio.vocabulary import APPROXIMATED, IRRELEVANT, REFUSED

    groups = [UNDERSTOOD, set(IRRELEVANT), set(APPROXIMATED), set(REFUSED), set(ALIASES)]
    for index, group in enumerate(groups):
        assert not any(group & other for other in groups[index + 1 :])
    if shutil.which("fio") is None:
        pytest.skip("fio is not installed")
    listed = subprocess.run(["fio", "--cmdhelp=all"], capture_output=True, text=True, timeout=60).stdout
    names = {line.split()[0].rstrip(":") for line in listed.splitlines() if line.strip()}
    assert len(names) > 150 and names <= set().union(*groups)


def test_an_lfsr_visits_every_block_even_without_a_map(tmp_path):
    (load,) = loads_of(tmp_path, "[a]\nrw=randwrite\nsize=1m\nnorandommap\nrandom_generator=lfsr\n")
    assert load.address == "shuffle"


def test_an_offloaded_synchronous_engine_has_its_depth(tmp_path):
    (load,) = loads_of(tmp_path, "[a]\nrw=write\nsize=1m\niodepth=8\nioengine=psync\nio_submit_mode=offload\n")
    assert load.queue_depth == 8


# What a user names is not always a file


@pytest.mark.parametrize("what", ["/dev/zero", "/dev/null", "{}/pipe", "{}", "{}/none", "{}/binary", "{}/large"])
def test_an_include_of_anything_is_answered_at_once(tmp_path, what, monkeypatch):
    import os
    import time

    monkeypatch.setattr("farwrite.base.user_file.READ_SECONDS", 0.3)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    begun = time.monotonic()
    with pytest.raises(UsageError, match="read the job file"):
        loads_of(tmp_path, f"[a]\ninclude {what.format(tmp_path)}\nrw=write\nsize=1m\n")
    assert time.monotonic() - begun < 60  # Not for ever.


def test_files_that_include_one_another_without_end_are_refused(tmp_path):
    for depth in range(14):
        (tmp_path / f"{depth}.inc").write_text(f"include {depth + 1}.inc\n" * 8)
    (tmp_path / "14.inc").write_text("bs=8k\n")
    with pytest.raises(UsageError, match="includes more than 256 files"):
        loads_of(tmp_path, "[a]\nrw=write\nsize=1m\ninclude 0.inc\n")
