"""`farwrite gate`: hold a report against its budgets; the exit code is the verdict."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..errors import UsageError
from .output import console, printing

if TYPE_CHECKING:
    from ..figure import Sheet

BUDGETS = Path("results/budgets.toml")  # Taken when it is there and no other is named.


def gate(
    report: Path,
    *,
    budgets: Path | None = None,
    baseline: Path | None = None,
    look: int = 1,
    inconclusive: Literal["fail", "pass"] | None = None,
    allow_mismatch: Annotated[list[str] | None, Parameter(negative="")] = None,
    junit: Path | None = None,
    markdown: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    annotations: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Hold a report against budgets: pass, fail or unknown.

    Exits with 0 when every budget is kept, 3 when one is broken, 4 when one cannot be decided, 5 when acknowledged writes are
    lost, 6 when the runs cannot be compared.

    Parameters
    ----------
    report
        A report.json, or the directory of a run.
    budgets
        The budgets, a TOML file; results/budgets.toml when there is one.
    baseline
        The report that budgets with not_worse_by are held against.
    look
        The how-manieth time this candidate is judged; the budgets file says how many there may be.
    inconclusive
        What a budget that cannot be decided counts as, instead of exit code 4.
    allow_mismatch
        A field in which report and baseline may differ, such as host or cells. May be repeated.
    junit
        Write the verdicts to this file as JUnit XML.
    markdown
        Write the verdicts to this file as Markdown; "-" is stdout. $GITHUB_STEP_SUMMARY is appended to.
    annotations
        Print GitHub's workflow commands for what failed or is unknown.
    json
        Print the verdicts as a document.
    """
    from ..budget import load
    from ..gate import exit_code_of, metrics_of
    from ..gate import gate as judge
    from ..sheet import read_sheet

    if json and (annotations or markdown == "-"):
        raise UsageError(f"--json and {'--annotations' if annotations else '--markdown -'} both want stdout: choose one.")
    if budgets is None and not BUDGETS.is_file():
        raise UsageError(f'Which budgets? Say --budgets FILE; "farwrite budget suggest {report}" proposes some.')
    sheet = read_sheet(report)
    base = read_sheet(baseline) if baseline is not None else None
    promised = load(budgets or BUDGETS, metrics_of(sheet, base))
    found = judge(sheet, promised, base, again_beside(baseline, base, sheet), look, allow_mismatch or [])

    if junit is not None:
        from ..report.junit import junit_of

        write(junit, junit_of(found, inconclusive))
    if markdown is not None and markdown != "-":
        from ..report.markdown import markdown_of

        write_or_append(Path(markdown), markdown_of(found))
    with printing():
        if json:
            import msgspec

            sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
        elif markdown == "-":
            from ..report.markdown import markdown_of

            sys.stdout.write(markdown_of(found))
        else:
            from ..report.gate import show_gate

            show_gate(found, console())
        if annotations:
            from ..report.markdown import annotations_of

            for line in annotations_of(found):
                print(line)
    return exit_code_of(found, inconclusive)


def again_beside(baseline: Path | None, base: Sheet | None, sheet: Sheet) -> Sheet | None:
    """The base measured a second time, where both reports are arms of one A/B experiment and it lies beside them."""
    from ..sheet import REPORT_NAMES, read_sheet

    if baseline is None or base is None or base.pairing is None or sheet.pairing is None:
        return None
    place = (baseline if baseline.is_dir() else baseline.parent).parent / "again"
    if base.pairing.id != sheet.pairing.id or not any((place / name).is_file() for name in REPORT_NAMES):
        return None
    found = read_sheet(place)
    return found if found.pairing and found.pairing.id == base.pairing.id and found.pairing.arm == "again" else None


# Files


def write_or_append(path: Path, text: str) -> None:
    """Markdown to its file; GitHub's summary belongs to all steps, so it is appended to."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary or Path(summary) != path:
        write(path, text)
        return
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as refusal:
        raise UsageError(f"append to {path}: {refusal.strerror}.") from refusal


def write(path: Path, text: str) -> None:
    """A file, whole or not at all; what is there already is replaced only when it is a file like it."""
    try:
        if path.is_symlink() or (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
            raise UsageError(f"{path} is there already and no ordinary file: name another one.")
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:50]}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as refusal:
        reason = refusal.strerror if isinstance(refusal, OSError) else str(refusal)
        raise UsageError(f"write {path}: {reason}.") from refusal
