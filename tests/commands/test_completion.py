"""`farwrite --install-completion`: where the script goes, that a shell can read it, and which values it is given."""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess
import sys

import pytest

from console import ROOT, environment, farwrite
from farwrite.analysis.figure import METRICS
from farwrite.commands.completion import BEGINNINGS, OUR_BASH_END, place_for, save, script_for, what_is_left
from farwrite.commands.table import COMMANDS

REFUSED = 2
PLACES = {
    "bash": ".local/share/bash-completion/completions/farwrite", "zsh": ".zsh/completions/_farwrite",
    "fish": ".config/fish/completions/farwrite.fish",
}  # fmt: skip
TEN_S = 10  # For a shell that reads a script.


def at_home(home, *words, **env):
    """The command of somebody whose home this is, with nothing said of other places."""
    places = dict.fromkeys(("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"), "")
    return farwrite(*words, cwd=home, HOME=str(home), **places, **env)


@functools.cache
def script_of(shell):
    """The script, which takes a second to make."""
    return script_for(shell)


def completed(place, *words):
    """The values for the last of these words."""
    done = farwrite("__complete", *words, cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition("\t")[0] for line in done.stdout.split("\x1fbegin\n")[1].splitlines()]


@pytest.fixture
def place(tmp_path):
    """A place with two runs and a baseline."""
    for name in ("20260101T000000Z-small-aaaaaa", "20260102T000000Z-small-bbbbbb"):
        (tmp_path / "results" / "runs" / name).mkdir(parents=True)
        (tmp_path / "results" / "runs" / name / "report.json").write_text("{}")
    (tmp_path / "results" / "baselines").mkdir()
    (tmp_path / "results" / "baselines" / "limits.json").write_text("{}")
    return tmp_path


# The script


def test_the_script_goes_where_the_shell_looks_and_no_start_up_file_is_touched(tmp_path):
    done = at_home(tmp_path, "--install-completion", FISH_VERSION="3")  # It was typed in that.
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"saved: {tmp_path / PLACES['fish']}\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / PLACES["fish"]]
    assert (tmp_path / PLACES["fish"]).read_text() == script_of("fish")


def test_the_script_may_go_to_stdout(tmp_path):
    done = at_home(tmp_path, "--install-completion", "--shell", "bash", "--output", "-")
    assert (done.returncode, done.stdout) == (0, script_of("bash")) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", PLACES)
def test_every_shell_has_its_place_and_an_earlier_script_is_replaced(tmp_path, monkeypatch, shell):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place_for(shell) == tmp_path / PLACES[shell]
    for script in (script_of(shell), script_of(shell) + "# newer\n"):
        save(script.encode(), place_for(shell))
        assert place_for(shell).read_text() == script
    assert str(place_for(shell).parent) in what_is_left(shell, place_for(shell)) or shell == "fish"


def test_what_is_not_ours_is_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("mine")
    done = at_home(tmp_path, "--install-completion", "--shell", "bash", "--output", "mine")
    assert done.returncode == REFUSED and "is no completion script" in done.stderr
    assert (tmp_path / "mine").read_text() == "mine"
    assert at_home(tmp_path, "--install-completion", "--shell", "bash", "--output", ".").returncode == REFUSED
    assert at_home(tmp_path, "--install-completion", "--shell", "csh").returncode == REFUSED


@pytest.mark.parametrize("shell", PLACES)
def test_the_script_knows_every_command_and_option_and_its_shell_can_read_it(tmp_path, shell):
    script = script_of(shell)
    for name in COMMANDS:
        assert name in script
    assert "--read-share" in script and "far-site" not in script
    assert "__complete" in script  # Values of ours are asked for.
    assert script.encode().startswith(BEGINNINGS)
    assert shell != "bash" or OUR_BASH_END in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        read = subprocess.run([shell, "-n", "script"], cwd=tmp_path, capture_output=True, text=True, timeout=TEN_S, check=False)
        assert (read.returncode, read.stderr) == (0, "")


def called_farwrite_in(place):
    """What a shell finds by the name."""
    (place / "farwrite").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m farwrite "$@"\n')
    (place / "farwrite").chmod(0o755)


def in_shells_of(place):
    return environment(PATH=f"{place}:/usr/bin:/bin", PYTHONPATH=str(ROOT / "bench"), HOME=str(place))


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_commands_options_names_and_otherwise_paths(place):
    """The last word of each line; in a bash that knows nothing but our script."""
    called_farwrite_in(place)
    (place / "script").write_text(script_of("bash"))
    ask = 'source ./script; COMP_WORDS=({}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); _farwrite; echo "${{COMPREPLY[@]}}"'
    found = []
    for line in ("farwrite hist", "farwrite run --quie", "farwrite show limi", "farwrite doctor --nothing"):
        done = subprocess.run(
            ["bash", "--norc", "-c", ask.format(line)], cwd=place, capture_output=True, text=True, check=True,
            env=in_shells_of(place), timeout=60,
        )  # fmt: skip
        found.append(done.stdout.strip())
    assert found == ["history", "--quiet", "limits", ""]


LINES = {"farwrite hist": "history", "farwrite run --quie": "--quiet", "farwrite show limi": "limits"}

# A terminal of zsh's own, in which somebody types the line and a tab; what it shows then.
TYPED_IN_ZSH = """
zmodload zsh/zpty
for line whole in "$@"; do
    zpty z zsh -f -i
    zpty -w z "PROMPT='> '; fpath=($PWD/zsh \\$fpath); autoload -Uz compinit; compinit -u -D; echo REA''DY"
    zpty -r -m z shown '*READY*'
    zpty -w -n z "$line"$'\\t'
    all=
    for turn in {1..200}; do
        while zpty -r -t z shown; do all+=$shown; done
        [[ $all == *$whole* ]] && break
        sleep 0.1
    done
    print -r -- "$all" | tr -d '\\r\\n'
    print
    zpty -d z
done
"""


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_completes_commands_options_and_names_when_a_tab_is_typed(place):
    called_farwrite_in(place)
    (place / "zsh").mkdir()
    (place / "zsh" / "_farwrite").write_text(script_of("zsh"))
    (place / "typed.zsh").write_text(TYPED_IN_ZSH)
    done = subprocess.run(
        ["zsh", "-f", "typed.zsh", *(word for pair in LINES.items() for word in pair)], cwd=place, capture_output=True, text=True,
        check=True, env=in_shells_of(place), timeout=120,
    )  # fmt: skip
    for line, whole in zip(done.stdout.splitlines(), LINES.values(), strict=True):
        assert whole in line


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_completes_commands_options_and_names(place):
    called_farwrite_in(place)
    (place / "script").write_text(script_of("fish"))
    asked = "; ".join(f"complete -C {shlex.quote(line)}" for line in LINES)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source ./script; {asked}"], cwd=place, capture_output=True, text=True, check=True,
        env=in_shells_of(place), timeout=60,
    )  # fmt: skip
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == list(LINES.values())


# The values


def test_a_report_is_completed_by_every_name_it_has(place):
    runs = ["20260102T000000Z-small-bbbbbb", "20260101T000000Z-small-aaaaaa"]
    for words in (["show"], ["html"], ["compare"], ["compare", "latest"], ["compare", "--base"], ["gate"], ["export"],
                  ["budget", "suggest"], ["baseline", "promote"], ["html", "latest"]):  # fmt: skip
        found = completed(place, *words, "")
        assert sorted(found) == sorted(["latest", "limits", *runs]), words
    assert completed(place, "show", "la") == ["latest"]
    assert completed(place, "show", "20260101") == runs[1:]
    assert completed(place, "compare", "limits..la") == ["limits..latest"]


def test_where_no_name_is_meant_there_are_paths(place):
    assert completed(place, "show", "res") == ["results/"]
    assert completed(place, "show", "results/b") == ["results/baselines/"]
    assert completed(place, "show", "results/baselines/") == ["results/baselines/limits.json"]
    assert completed(place, "show", "nowhere/x") == []


def test_profiles_traces_and_metrics_are_completed(place):
    assert completed(place, "run", "olt") == ["oltp"] == completed(place, "ab", "quick", "olt")
    assert completed(place, "run", "--trace", "pg") == ["pgbench"] == completed(place, "trace", "info", "pg")
    assert set(completed(place, "history", "response_p5")) == set(METRICS)


def test_a_place_without_results_has_no_names_and_nothing_is_said(tmp_path):
    assert completed(tmp_path, "show", "") == []
