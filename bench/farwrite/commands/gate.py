"""`farwrite gate`: hold a report against its budgets; the exit code is the verdict."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..base.errors import EXIT_DONE, UsageError
from ..base.files import descriptor_of, ordinary, write_atomically
from .flags import Flag
from .output import console, print_document, printing
from .reports import named, pair_of
from .values import a_report

if TYPE_CHECKING:
    from ..gate.budget import Budgets
    from ..gate.budget_verdict import Case
    from ..gate.gate import Gate

BUDGETS = Path("results/budgets.toml")  # Taken when it is there and no other is named.


def gate(
    report: Annotated[Path, a_report],
    *,
    budgets: Path | None = None,
    baseline: Annotated[Path | None, a_report] = None,
    results: Path = Path("results"),
    look: int = 1,
    inconclusive: Literal["fail", "pass"] | None = None,
    allow_mismatch: Annotated[list[str] | None, Parameter(negative="")] = None,
    junit: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    markdown: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    annotations: Flag = False,
    self_test: Flag = False,
    json: Flag = False,
) -> int:
    """Hold a report against budgets: pass, fail or unknown.

    Exits with 0 when every budget is kept, 3 when one is broken, 4 when one cannot be decided, 5 when acknowledged writes are
    lost, 6 when the runs cannot be compared.

    Parameters
    ----------
    report
        A report.json, the directory or the id of a run, the name of a baseline, or "latest". A..B is B held against A.
    budgets
        The budgets, a TOML file; otherwise those that the run was given itself, otherwise results/budgets.toml.
    baseline
        The report that budgets with not_worse_by are held against.
    results
        Directory whose earlier runs show what differs from run to run, where report and baseline are two runs.
    look
        The how-manieth time this candidate is judged; the budgets file says how many there may be.
    inconclusive
        What a budget that cannot be decided counts as, instead of exit code 4.
    allow_mismatch
        A field in which report and baseline may differ, such as host or cells. May be repeated.
    junit
        Write the verdicts to this file as JUnit XML; "-" is stdout.
    markdown
        Write the verdicts to this file as Markdown; "-" is stdout. $GITHUB_STEP_SUMMARY is appended to.
    annotations
        Print GitHub's workflow commands for what failed or is unknown.
    self_test
        Judge nothing: replay the report's rounds, and print how often this gate would raise a false alarm and the
        smallest slow-down that each budget sees. Without a baseline the report is its own.
    json
        Print the verdicts as a document.
    """
    from ..compare.figures import aa_control_beside, read_result_set
    from ..gate.budget import load, own_budgets
    from ..gate.gate import cases_of, exit_code_of, metrics_of
    from ..gate.gate import gate as judge
    from .earlier import history_beside

    refuse_two_documents(json, annotations, markdown, junit)
    report, baseline = sides_of(report, baseline)
    result_set = read_result_set(report)
    has_own = budgets is None and bool(result_set.budgets)
    if budgets is None and not has_own and not BUDGETS.is_file():
        raise UsageError(f'Which budgets? Say --budgets FILE; "farwrite budget suggest {report}" proposes some.')
    base = read_result_set(baseline) if baseline is not None else None
    promised = own_budgets(result_set.budgets) if has_own else load(budgets or BUDGETS, metrics_of(result_set, base))
    twin = aa_control_beside(baseline, base, result_set) if baseline is not None and base is not None else None
    if self_test:
        cases, _ = cases_of(result_set, promised, base or result_set, twin, allow_mismatch or [])
        return test_itself(report, baseline, cases, promised, json)
    held = base if any(budget.kind == "not_worse_by" for budget in promised.budgets) else None
    found = judge(result_set, promised, base, twin, look, allow_mismatch or [], history_beside(results, held, result_set))
    write_verdicts(found, inconclusive, junit, markdown)
    print_verdicts(found, json, annotations, is_stdout(markdown) or is_stdout(junit))
    return exit_code_of(found, inconclusive)


def refuse_two_documents(json: bool, annotations: bool, markdown: str | None, junit: Path | None) -> None:
    """UsageError where two of what was asked for want stdout for themselves."""
    wanted = {
        "--json": json, "--annotations": annotations and json, "--markdown -": is_stdout(markdown), "--junit -": is_stdout(junit),
    }  # fmt: skip
    on_stdout = [word for word, is_wanted in wanted.items() if is_wanted]
    if len(on_stdout) > 1:
        raise UsageError(f"{on_stdout[0]} and {on_stdout[1]} both want stdout: choose one.")


def write_verdicts(found: Gate, inconclusive: Literal["fail", "pass"] | None, junit: Path | None, markdown: str | None) -> None:
    """The files that were asked for."""
    if junit is not None:
        from ..report.junit import junit_of

        write(junit, junit_of(found, inconclusive))
    if markdown is not None:
        from ..report.markdown import markdown_of

        write_or_append(Path(markdown), markdown_of(found))


def print_verdicts(found: Gate, json: bool, annotations: bool, is_taken: bool) -> None:
    """The verdicts on stdout, for a person unless a file that was asked for is stdout (`is_taken`); then GitHub's commands."""
    with printing():
        if json:
            print_document(found)
        elif not is_taken:
            from ..report.gate import show_gate

            show_gate(found, console())
        if annotations:
            from ..report.markdown import annotations_of

            for line in annotations_of(found):
                print(line)


def sides_of(report: Path, baseline: Path | None) -> tuple[Path, Path | None]:
    """(the report that is judged, what it is held against)."""
    pair = pair_of(report)
    if pair and baseline is not None:
        raise UsageError(f"{report} names a baseline, and so does --baseline {baseline}: give one of the two.")
    base, cand = pair or (baseline, report)
    return named(cand), None if base is None else named(base)


def test_itself(report: Path, baseline: Path | None, cases: list[Case], promised: Budgets, json: bool) -> int:
    """Print what the gate sees, and how often it errs, on rounds like this report's."""
    from .. import recording
    from ..compare.figures import contents, is_report
    from ..gate.self_test import self_test
    from ..progress import bar

    recordings = []
    for path in (report, baseline or report):
        place, data = contents(path)
        if not is_report(data):
            raise UsageError(f"{place} holds no rounds that could be replayed: a self-test wants a report of farwrite.")
        recordings.append(recording.decode(data, str(place)).recording)
    with bar() as progress:
        made = self_test(recordings[0], recordings[1], cases, promised.alpha, promised.looks, progress)
    with printing():
        if json:
            print_document(made)
        else:
            from ..report.selftest import show_self_test

            show_self_test(made, console())
    return EXIT_DONE


# Files


def is_stdout(path: Path | str | None) -> bool:
    """Whether a file that was asked for is stdout, which then holds nothing else."""
    return path is not None and descriptor_of(Path(path)) == 1


def write_or_append(path: Path, text: str) -> None:
    """Markdown to its file; GitHub's summary belongs to all steps, so it is appended to."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary or Path(summary) != path:
        write(path, text)
        return
    try:
        with ordinary(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as refusal:
        raise UsageError(f"append to {path}: {refusal.strerror}.") from refusal


def write(path: Path, text: str) -> None:
    """A file, whole or not at all; what is there already is replaced only when it is a file like it."""
    try:
        is_other = path.is_symlink() or (path.exists() and not stat.S_ISREG(path.stat().st_mode))
        if is_other and descriptor_of(path) is None:
            raise UsageError(f"{path} is there already and no ordinary file: name another one.")
        write_atomically(path, text.encode())
    except (OSError, ValueError) as refusal:
        reason = refusal.strerror if isinstance(refusal, OSError) else str(refusal)
        raise UsageError(f"write {path}: {reason}.") from refusal
