"""Exit codes of all commands, as docs/commands.md has them; what a terminal, a pipe or a hand on Ctrl-C may do to any of them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator
from test_readme import check_farwrite

from console import ROOT, SHORT, environment, farwrite, words_of
from farwrite.base.documents import read_document
from farwrite.cli import app
from farwrite.commands.examples import EXAMPLES, EXIT_CODES
from farwrite.commands.table import COMMANDS
from farwrite.recording import save
from make_recording import SMALL, made_report

DONE, REFUSED, BROKEN, UNKNOWN, LOST, UNFIT = 0, 2, 3, 4, 5, 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Reports of every kind, and budgets."""
    place = tmp_path_factory.mktemp("place")
    for name, truth in (("good", {}), ("lost", {"lost_in_rounds": 1}), ("memory", {"durability": "memory"})):
        save(made_report(SMALL, **truth), place / f"{name}.json")
    for name, body in (
        ("kept", 'metric = "lost_writes"\nequals = 0'), ("broken", 'metric = "response_p50"\nat_most = "1 us"'),
        ("open", 'metric = "response_p999"\nat_most = "9 ms"\nwhere = { protocol = "C", miles = 150 }'),
    ):  # fmt: skip
        (place / f"{name}.toml").write_text(f"[[budget]]\n{body}\n")
    (place / "ours").symlink_to(ROOT / "results")
    (place / "fio.json").write_text((ROOT / "tests" / "compare" / "foreign" / "fio_json.json").read_text())
    (place / "README.md").write_text("# A workload\n\n[limits] are in `limits.toml`\n")
    return place


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help", DONE), ("--version", DONE), ("help", DONE), ("help trace convert", DONE), ("help nothing", REFUSED),
        ("profiles", DONE), ("profiles x", REFUSED), ("schema", DONE), ("schema profile", DONE), ("schema x", REFUSED),
        ("run limitz", REFUSED), ("run quick --dry-run", DONE), ("run README.md", REFUSED), ("run --resume .", REFUSED),
        ("run quick --budget 'p98 2 ms'", REFUSED), ("run --resume . --budget 'p99 2 ms'", REFUSED),
        ("reach", REFUSED), ("sweep --minutes 0", REFUSED), ("ab quick quick --pairs 1", REFUSED),
        ("drill", DONE), ("drill link-cutt", REFUSED), ("drill link-cut --policy consent --no-witness", REFUSED),
        ("show good.json", DONE), ("show lost.json", DONE), ("show none.json", REFUSED), ("html good.json", DONE),
        ("html fio.json", REFUSED), ("compare good.json good.json", DONE), ("compare good.json", REFUSED),
        ("compare good.json memory.json", UNFIT), ("export good.json --hlog x.hlog", DONE), ("export good.json", REFUSED),
        ("import fio.json", DONE), ("import good.json", REFUSED), ("trace info pgbench", DONE), ("trace info none", REFUSED),
        ("trace convert pgbench x.csv --to 1", DONE), ("trace convert pgbench x.xyz", REFUSED),
        ("gate good.json --budgets kept.toml", DONE), ("gate good.json --budgets broken.toml", BROKEN),
        ("gate good.json --budgets open.toml", UNKNOWN), ("gate lost.json --budgets kept.toml", LOST),
        ("gate good.json --budgets none.toml", REFUSED), ("budget suggest good.json", DONE), ("budget suggest", REFUSED),
        ("budget suggest good.json memory.json", UNFIT), ("history response_p50 --results ours", DONE),
        ("history response_p51", REFUSED),
        ("baseline list", DONE), ("baseline promote good.json --force", DONE), ("baseline promote lost.json", REFUSED),
        ("volume info .", REFUSED), ("lab", REFUSED), ("serve", REFUSED), ("serve --volume .", REFUSED),
        ("snapshot", DONE), ("snapshot list --sockets .", UNFIT), ("snapshot create a/b", REFUSED), ("copy", REFUSED),
        ("copy x y", REFUSED), ("pool", DONE), ("pool show .", REFUSED), ("pool create . --node a", REFUSED),
        ("migrate x", REFUSED), ("volume list", REFUSED), ("volume list --pool .", REFUSED), ("case", DONE), ("case x", REFUSED),
        ("survey --miles -1", REFUSED), ("trips --size 5", REFUSED), ("trips --uri nbd://x", REFUSED), ("doctor x", REFUSED),
        ("simulate --seed 3", DONE), ("simulate --seeds -1", REFUSED), ("simulate --seeds 0", REFUSED),
        ("simulate --from -1", REFUSED), ("simulate --seed -1", REFUSED), ("simulate --minutes 0", REFUSED),
        ("simulate --minutes nan", REFUSED), ("nothing", REFUSED),
    ],
)  # fmt: skip
def test_the_exit_code_says_how_it_ended_and_only_a_refusal_has_a_sentence(place, line, code):
    done = farwrite(*shlex.split(line), cwd=place)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    sentences = [text for text in done.stderr.splitlines() if text.startswith("farwrite: ")]
    if code in (REFUSED, UNFIT):
        assert len(sentences) == 1 and done.stdout == "", done.stderr


def test_every_command_is_in_that_list():
    marks = test_the_exit_code_says_how_it_ended_and_only_a_refusal_has_a_sentence.pytestmark
    typed = {shlex.split(line)[0] for mark in marks for line, _ in mark.args[1]}
    assert set(COMMANDS) <= typed


def test_the_manual_and_the_help_have_the_same_codes():
    manual = (ROOT / "docs" / "commands.md").read_text().split("## Exit codes")[1]
    numbers = re.findall(r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \|", manual, re.MULTILINE)))
    assert set(numbers) == set(re.findall(r"\b\d+\b", EXIT_CODES)) == {"0", "1", "2", "3", "4", "5", "6", "129", "130", "143"}
    assert "--strict" in manual and "Exit codes:" in farwrite("--help").stdout
    assert not re.search(r"farwrite run limits *\|\|", (ROOT / "Makefile").read_text())


# Help


def test_every_help_has_an_example_that_works():
    named = set(EXAMPLES)
    for name in app:
        if name.startswith("-") or not app[name].show:
            continue
        assert name in named
        own = [f"{name} {part}" for part in app[name] if not part.startswith("-")]
        assert set(own) <= named, own
    for command, examples in EXAMPLES.items():
        shown = " ".join(farwrite(*command.split(), "--help").stdout.split())
        for example in examples:
            assert " ".join(example.split()) in shown, shown


@pytest.mark.parametrize("example", sorted({line for lines in EXAMPLES.values() for line in lines}))
def test_an_example_of_the_help_works(example):
    words = shlex.split(example)
    assert words[0] == "farwrite"
    if "latest" not in words:  # Nobody has measured anything here yet.
        check_farwrite(words[1:])


def test_the_commands_are_listed_in_groups_and_none_is_forgotten():
    text = farwrite("--help").stdout
    for group in ("Measure", "Read and compare reports", "Judge and keep", "The lab and the engine", "About farwrite"):
        assert f"─ {group} ─" in text
    for name in (*COMMANDS, "help"):
        assert re.search(rf"^│ {name} ", text, re.MULTILINE), name
    assert farwrite("help").stdout == text
    assert farwrite("help", "trace", "info").stdout == farwrite("trace", "info", "--help").stdout


# Words that were not understood


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("show good.json b c", '"b c" are words too many: see "farwrite show --help"'),
        ("trace info pgbench x", '"x" is one word too many: see "farwrite trace info --help"'),
        ("shwo", 'no command "shwo" (did you mean "show"?)'), ("trace inof", 'no command "trace inof" (did you mean "info"?)'),
        ("run README.md", "README.md is neither a profile (a TOML file with [[cell]]) nor a fio job file"),
        ("run none.job", "no profile none.job"),
        ("run quick --set cell.write.size=4k", 'unknown key "size" (did you mean "block"?)'),
        ("run quick --set cell.write.iodepth=4", 'did you mean "queue_depth"?'),
        ("run quick --set run.duration=4", 'did you mean "round"?'),
        ("run quick --set lab.link=pigeon", "choose one of auto, netem, ferry, relay"),
        ("run quick --set cell.write.address=zipff", '(did you mean "zipf"?): choose one of sequential, uniform, zipf'),
        ("run quick --set 'cell.write.protocols=[\"D\"]'", "choose one of local, A, B, C, C2, quorum"),
        ("run quick --set link.jitter_shape=x", "choose one of uniform, normal, pareto, recorded"),
        ("run quick --dry-run --resume .", "--resume continues a run as it was begun"),
        ("run --resume . --seed 1", "--resume continues a run as it was begun"),
        ("simulate --seeds -1", "--seeds -1: give 1 to"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_answered_with_what_would_be_right(place, line, said):
    done = farwrite(*shlex.split(line), cwd=place)
    assert done.returncode == REFUSED and said in done.stderr, done.stderr


def test_a_fio_job_is_known_by_what_is_in_it(tmp_path):
    for name in ("oltp.fio", "oltp.job", "oltp.txt", "oltp"):
        (tmp_path / name).write_text("[oltp]\nrw=randwrite\nbs=8k\nsize=64m\niodepth=4\nioengine=libaio\n")
        done = farwrite("run", name, "--dry-run", cwd=tmp_path)
        assert done.returncode == DONE and "8 KiB" in done.stdout, done.stderr
    (tmp_path / "mine").write_text('title = "x"\n[distance]\nmiles = [20]\n[[cell]]\nname = "w"\nprotocols = ["C"]\n')
    assert "w-C-20" in farwrite("run", "mine", "--dry-run", cwd=tmp_path).stdout


def test_a_dry_run_says_which_cells_and_how_long_and_writes_nothing(tmp_path):
    done = farwrite("run", "quick", "--miles", "0,20", "--dry-run", "--json", cwd=tmp_path)
    found = msgspec.json.decode(done.stdout)
    assert {cell["miles"] for cell in found["cells"]} == {0.0, 20.0} and found["expected_s"] > 0 and found["rounds"] > 0
    longer = farwrite("run", "quick", "--miles", "0,20", "--dry-run", "--json", "--set", "run.rounds=50", cwd=tmp_path)
    assert msgspec.json.decode(longer.stdout)["expected_s"] > found["expected_s"]
    text = farwrite("run", "quick", "--dry-run", "--budget", "p99 2 ms", "--budget", "p50=1ms at 20", cwd=tmp_path).stdout
    assert "Budgets: p99 2 ms, p50 1 ms at 20 miles." in text
    assert "Nothing was measured." in text and max(map(len, text.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


# What a profile's schema says


def test_the_schema_of_a_profile_knows_every_key_of_the_shipped_ones_and_no_other():
    import tomllib

    schema = msgspec.json.decode(farwrite("schema", "profile").stdout)
    Draft202012Validator.check_schema(schema)
    for part in schema["$defs"].values():
        part["additionalProperties"] = False  # A key of a shipped profile that the schema lacks shows so.

    def strange(profile):
        return sorted((fault.json_path, fault.validator) for fault in Draft202012Validator(schema).iter_errors(profile))

    files = sorted((ROOT / "workloads").glob("*.toml"))
    assert files
    for file in files:
        assert strange(tomllib.loads(file.read_text())) == [], file
    wrong = {"title": "x", "distance": {"miles": [1], "mile": 2}, "cell": [{"name": "w", "block": "4 KX", "arrival": "often"}],
             "run": {"round": "1 s", "rounds": "5"}, "link": {"loss": "1 %", "lost": "1 %"}}  # fmt: skip
    assert strange(wrong) == [
        ("$.cell[0].arrival", "enum"), ("$.cell[0].block", "pattern"), ("$.distance", "additionalProperties"),
        ("$.link", "additionalProperties"), ("$.run.rounds", "type"),
    ]  # fmt: skip
    assert schema["$defs"]["RunTable"]["properties"]["round"]["default"] == "1 s"


# Streams


@pytest.mark.parametrize(
    ("line", "closed"),
    [("show good.json", ">&-"), ("show --json good.json", ">&- 2>&-"), ("show good.json", "<&- >&- 2>&-"), ("--help", ">&-"),
     ("schema", "<&- >&-"), ("show none.json", "2>&-"), ("show none.json", ">&-")],
)  # fmt: skip
def test_a_stream_that_was_closed_is_no_crash(place, line, closed):
    command = f"{shlex.join(words_of(*line.split()))} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=place, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == (REFUSED if "none" in line else DONE), done.stderr
    assert "Traceback" not in done.stderr and "Traceback" not in done.stdout


def test_what_is_printed_to_a_closed_stdout_does_not_get_into_a_file(place, tmp_path):
    command = f"{shlex.join(words_of('html', 'good.json', '--out', tmp_path / 'page.html'))} >&-"
    subprocess.run(["sh", "-c", command], cwd=place, env=environment(), check=True)
    assert farwrite("html", "good.json", "--out", tmp_path / "other.html", cwd=place).returncode == DONE
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "other.html").read_bytes()


@pytest.mark.parametrize(
    ("line", "encoding"),
    [("show --full good.json", "latin-1"), ("show --full good.json", "utf-8"), ("--help", "ascii"),
     ("gate good.json --budgets kept.toml", "cp1252"), ("compare good.json good.json", "ascii")],
)  # fmt: skip
def test_an_encoding_without_our_signs_gets_plainer_ones(place, line, encoding):
    done = subprocess.run(
        words_of(*line.split()), cwd=place, env=environment(PYTHONIOENCODING=encoding), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (DONE, b"")
    text = done.stdout.decode(encoding)
    plain = farwrite(*line.split(), cwd=place).stdout
    assert len(text.splitlines()) == len(plain.splitlines())
    assert max(map(len, text.splitlines())) <= 80
    assert text == plain if encoding == "utf-8" else "✔" not in text


def test_a_document_is_utf_8_whatever_the_terminal_is(place):
    words = words_of("show", "--json", "good.json")
    done = subprocess.run(words, cwd=place, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, check=False)
    assert done.stdout == read_document(place / "good.json", "read")


# Ctrl-C and kill


@pytest.mark.parametrize("after_ms", [0, 50, 100, 150, 250])
def test_an_interruption_while_it_loads_is_one_line_and_130(place, after_ms):
    """Counted from when it catches interruptions, which is before it loads anything; Python itself says what it likes."""
    reader, writer = os.pipe()
    code = (
        "import os, sys\nfrom farwrite import cli\nheed = cli.heed_signals\n"
        f"cli.heed_signals = lambda: (heed(), os.write({writer}, b'.'))\n"
        "sys.argv = ['farwrite', 'run', 'quick', '--dry-run']\ncli.main()\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=[writer], cwd=place, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"."
        time.sleep(after_ms / 1000)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=120)
    finally:
        os.close(reader)
        running.kill()
    assert running.returncode in (130, DONE, -signal.SIGINT), stderr  # It may have been done by then.
    assert "Traceback" not in stderr and len(stderr.splitlines()) <= 1, stderr


def alive(session: int) -> list[int]:
    """Processes of a session."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,sess=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, of, state in rows if int(of) == session and not state.startswith("Z")]


def started_at(pid: int) -> tuple[int, int]:
    """When a process was started, in ticks (proc(5)), and its number: numbers alone tell nothing, for they begin anew."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])  # Of Ctrl-C tests/engine/simulate says the same.
def test_a_simulation_that_is_killed_leaves_no_workers(number):
    running = subprocess.Popen(
        words_of("simulate", "--minutes", "5"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        limit_s = time.monotonic() + 120
        while len(alive(running.pid)) < 2 and running.poll() is None:
            assert time.monotonic() < limit_s
            time.sleep(0.05)
        time.sleep(0.3)
        running.send_signal(number)
        _, stderr = running.communicate(timeout=120)
        codes = {signal.SIGKILL: -9, signal.SIGTERM: 143}
        assert running.returncode == codes[number], stderr
        limit_s = time.monotonic() + 120
        while alive(running.pid):
            assert time.monotonic() < limit_s, "workers are left"
            time.sleep(0.05)
        assert "Traceback" not in stderr, stderr
    finally:
        for pid in alive(running.pid):
            os.kill(pid, signal.SIGKILL)
        running.wait()


# Runs


# Whether its link was good or not.
ONCE = [*SHORT, "--set", "run.rounds=1", "--set", "run.retries=0", "--set", "lab.durability=memory"]


@pytest.mark.lab
def test_two_runs_alike_may_begin_in_one_second(tmp_path):
    words = words_of("run", "quick", *ONCE, "--link", "relay")
    both = [
        subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [(*running.communicate(timeout=200), running.returncode) for running in both]
    assert all(code in (DONE, UNFIT) and "holds a run already" not in stderr for _, stderr, code in ended), ended
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 2


def test_a_directory_that_cannot_be_is_not_called_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    done = farwrite("run", "quick", *SHORT, "--out", tmp_path / "file")
    assert done.returncode == REFUSED and "File exists" in done.stderr and "holds a run" not in done.stderr, done.stderr


@pytest.mark.lab
def test_a_full_results_directory_is_a_sentence_and_the_run_goes_on_once_there_is_room(tmp_path):
    """A file system with room for the journal's first lines; the lab's own files are in memory."""
    place = tmp_path / "tiny"
    place.mkdir()
    words = ["run", "quick", *SHORT, "--set", "run.rounds=3", "--set", "lab.durability=memory"]
    line = (
        f"mount -t tmpfs -o size=96k none {place} && {{ {shlex.join(words_of(*words, '--out', place / 'run'))}; code=$?; "
        f"mount -o remount,size=64m {place}; "
        f"{shlex.join(words_of('run', '--resume', place / 'run', '--json'))} > {tmp_path}/report; "
        "echo again $? >&2; exit $code; }"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", line], env=environment(), capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts of our own here: {done.stderr.strip()}")
    assert done.returncode == UNFIT and "Traceback" not in done.stderr, done.stderr
    sentence = next(text for text in done.stderr.splitlines() if text.startswith("farwrite: "))
    assert "No space left on device" in sentence and f"run --resume {place}/run" in sentence
    assert "again 0" in done.stderr, done.stderr
    recording = msgspec.json.decode((tmp_path / "report").read_bytes())["recording"]
    good = {(item["cell"], item["index"]) for item in recording["rounds"] if item["status"] == "ok"}
    assert len(good) == 3 * len(recording["cells"])


@pytest.mark.lab
def test_a_run_is_continued_as_what_it_is_or_not_at_all(tmp_path):
    assert farwrite("run", "quick", *ONCE, "--link", "relay", "--out", tmp_path / "run").returncode in (DONE, UNFIT)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for line in (["run", "oltp"], ["sweep"], ["reach"]):
        done = farwrite(*line, "--resume", tmp_path / "run")
        assert done.returncode == REFUSED and "is a run of quick, not of" in done.stderr, done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert farwrite("run", "quick", "--resume", tmp_path / "run").returncode in (DONE, UNFIT)


@pytest.mark.lab
@pytest.mark.parametrize("link", ["ferry", "relay"])
def test_a_link_whose_process_is_killed_is_named_and_resume_finishes_the_run(tmp_path, link):
    directory = tmp_path / "run"
    words = words_of("run", "quick", *SHORT, "--set", "run.rounds=4", "--link", link, "--out", directory)
    running = subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        limit_s = time.monotonic() + 120
        while not ((directory / "cells.jsonl").is_file() and b'"round":{' in (directory / "cells.jsonl").read_bytes()):
            if running.poll() is not None:
                pytest.skip(running.communicate()[1])
            assert time.monotonic() < limit_s
            time.sleep(0.01)
        os.kill(max(alive(running.pid), key=started_at), signal.SIGKILL)  # The link's process is started last.
        _, stderr = running.communicate(timeout=100)
    finally:
        running.kill()
    assert running.returncode == UNFIT and "Traceback" not in stderr, stderr
    said = " ".join(stderr.split())
    assert f"The process that carries the link (the {link}, pid " in said and f"run --resume {directory}" in said
    done = farwrite("run", "--resume", directory)
    assert done.returncode == DONE, done.stderr
