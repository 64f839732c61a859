"""`farwrite --install-completion`: what a shell needs to complete commands and options, for bash, zsh and fish.

The script is cyclopts'; where a value is one of ours it asks `farwrite __complete`, which calls the functions of `values.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, get_args

from cyclopts import Parameter

from ..base.errors import EXIT_DONE, UsageError, system_error
from ..base.files import descriptor_of, write_atomically
from .output import print_bytes, printing

Shell = Literal["bash", "zsh", "fish"]
BEGINNINGS = (b"# Bash completion for farwrite\n", b"#compdef farwrite\n", b"# Fish completion for farwrite\n")

# What cyclopts' script for bash lacks: no space behind a directory, and files where nothing of ours fits.
BASH_END = "\n}\n\ncomplete -F "
OUR_BASH_END = '\n  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace\n}\n\ncomplete -o default -F '

# What it lacks for zsh: the file is the body of _farwrite, and only defines another function.
ZSH_CALL = '_cyclopts_farwrite "$@"\n'


def install_completion(
    *, shell: Shell | None = None, output: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None
) -> int:
    """Have your shell complete commands, options, names of reports, profiles and metrics. No start-up file of yours is changed.

    Parameters
    ----------
    shell
        For which one; that which this was typed in, unless told.
    output
        The file to write, where the shell looks for such by default; "-" is stdout.
    """
    shell = shell or shell_here()
    script = script_for(shell).encode()
    place = output or place_for(shell)
    if descriptor_of(place) is not None:
        with printing():
            print_bytes(script)
        return EXIT_DONE
    save(script, place)
    with printing():
        print(f"saved: {place}")
        print(what_is_left(shell, place))
    return EXIT_DONE


def shell_here() -> Shell:
    """The shell that this was typed in. UsageError when it cannot be told."""
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    known = get_args(Shell)
    try:
        found = detect_shell()
    except ShellDetectionError:
        found = None
    if found not in known:
        raise UsageError(f"Which shell is this? Say --shell {', '.join(known[:-1])} or {known[-1]}.")
    return found  # type: ignore[return-value]


def script_for(shell: Shell) -> str:
    """What the shell is to load."""
    from .table import app

    script = app.generate_completion(prog_name="farwrite", shell=shell)
    if shell == "bash":
        return script.replace(BASH_END, OUR_BASH_END)
    return script.rstrip("\n") + "\n\n" + ZSH_CALL if shell == "zsh" and not script.endswith(ZSH_CALL) else script


def place_for(shell: Shell) -> Path:
    """Where the shell looks for it: bash-completion(7), fish(1) and, once named in fpath, zshcompsys(1)."""
    home = Path.home()
    if shell == "bash":
        return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "bash-completion" / "completions" / "farwrite"
    if shell == "fish":
        return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions" / "farwrite.fish"
    return Path(os.environ.get("ZDOTDIR") or home) / ".zsh" / "completions" / "_farwrite"


def save(script: bytes, place: Path) -> None:
    """Write it, over an earlier one and over nothing else."""
    if place.is_dir():
        raise UsageError(f"--output {place} is a directory. Name a file in it.")
    try:
        if place.exists():
            with place.open("rb") as file:
                ours = place.is_file() and file.read(max(map(len, BEGINNINGS))).startswith(BEGINNINGS)
            if not ours:
                raise UsageError(f"{place} is there already and is no completion script. Name another file with --output.")
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, script)
    except OSError as refusal:
        raise system_error(f"write {place}", refusal.errno or 0) from refusal


def what_is_left(shell: Shell, place: Path) -> str:
    """What a person has to do so that the shell finds it."""
    if shell == "bash":
        return f"New shells have it where the package bash-completion is installed; elsewhere add to ~/.bashrc:  . {place}"
    if shell == "fish":
        return "New shells have it."
    return f"Add to ~/.zshrc, before the line with compinit:  fpath=({place.parent} $fpath)"
