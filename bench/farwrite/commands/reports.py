"""How a report is named on the command line: a path, `latest`, the id of a run, the name of a baseline, or two as A..B.

What exists as a path is that path. The id of a run is the name of its directory below results/runs; its end alone, or its
beginning, is enough where only one run has it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..base.documents import found_at, found_in, named_below
from ..base.errors import UsageError, only_near

RESULTS = Path("results")
LATEST = "latest"
PAIR = re.compile(r"(?P<base>.*?[^/])\.\.(?P<cand>.+)")
NAMES = ("report.json", "sheet.json")
LISTED_MAX = 5


def named(word: Path, experiments: bool = False) -> Path:
    """The path that a word means; UsageError when it names none, or two. `experiments`: an A/B experiment is meant as well."""
    if pair_of(word):
        raise UsageError(f'{word} names two reports, and one is wanted here. "farwrite compare {word}" compares them.')
    return single(word, experiments)


def named_each(words: tuple[Path, ...] | list[Path], experiments: bool = False) -> list[Path]:
    """The paths that words mean; A..B is two of them."""
    found: list[Path] = []
    for word in words:
        pair = pair_of(word)
        found += [single(part) for part in pair] if pair else [single(word, experiments)]
    return found


def pair_of(word: Path) -> tuple[Path, Path] | None:
    """Both sides of A..B; None where it is none. A path may have ".." in it, as a part of its own or where it exists."""
    match = None if os.path.lexists(found_at(word)) else PAIR.fullmatch(str(word))
    return (Path(match["base"]), Path(match["cand"])) if match else None


def single(word: Path, experiments: bool = False) -> Path:
    """What one word means."""
    found = meant_by(word, experiments)
    if found is not None:
        return found
    near = only_near(str(word), [LATEST, *(path.name for path in runs_below(experiments)), *named_below(RESULTS / "baselines")])
    raise UsageError(f'There is no report "{word}": no such file, and no such run or baseline below {RESULTS}{near}.')


def meant_by(word: Path, experiments: bool = False, results: Path = RESULTS) -> Path | None:
    """What one word means; None when it is a word and nothing has that name. A path that is not there is left to who reads it."""
    text = str(word)
    if os.path.lexists(found_at(word)) or len(word.parts) != 1:
        return word
    runs = runs_below(experiments, results)
    if text == LATEST:
        if not runs:
            raise UsageError(f'There is no latest report: no run below {results / "runs"} has one. "farwrite run" makes one.')
        return runs[-1]
    kept = found_at(results / "baselines" / f"{text}.json")
    for place in (results / "runs" / text, kept):
        if place in runs or (place == kept and kept.is_file()):
            return place
    found = [path for path in runs if path.name.endswith(f"-{text}") or path.name.startswith(text)]
    if len(found) > 1:
        listed = ", ".join(path.name for path in found[:LISTED_MAX]) + (" and others" if len(found) > LISTED_MAX else "")
        raise UsageError(f'"{text}" is the id of {len(found)} runs: {listed}. Give more of it.')
    return found[0] if found else word if word.suffix else None


def runs_below(experiments: bool, results: Path = RESULTS) -> list[Path]:
    """The runs that have a report, the one saved last at the end."""
    found = []
    for path in (results / "runs").glob("*"):
        if saved := found_in(path, NAMES) or (found_in(path / "base", NAMES[:1]) if experiments else []):
            found.append((saved[0].stat().st_mtime_ns, path.name, path))
    return [path for _, _, path in sorted(found)]
