"""`farwrite case`: a system that somebody runs, measured part by part, and its answer on one page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from ..base.documents import SUFFIX, found_at
from ..base.errors import EXIT_DONE, EXIT_INCONCLUSIVE, EXIT_LOST_WRITE, UsageError
from ..base.interruption import exit_code
from ..progress import bar
from .flags import Flag, Quiet, Verbose
from .measuring import SEEDS_MAX, check_texts
from .output import console, print_document, printing, refuse_both


# Longer than a function should be by its options and their help, which cyclopts reads from one signature; the body is not.
def case(
    name: str = "",
    /,
    *,
    only: str = "",
    quick: Flag = False,
    seed: int = 1,
    link: Literal["auto", "netem", "ferry"] = "auto",
    memory: Flag = False,
    out: Path | None = None,
    page: Path | None = None,
    json: Flag = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Measure a whole system: its writes by day, a building lost, its disks, its snapshots and remote copy. One page answers.

    A case says what it measures and what it assumes. Every figure has its interval, sample size and floor; what was computed and
    not measured is called modelled. Ctrl-C keeps the parts that are over. Exit code 5 when an acknowledged write was lost, 4 when
    nothing was measured.

    Parameters
    ----------
    name
        A shipped case, a TOML file, or the case.json of one that is over, to show it again. Without one, the shipped ones are
        listed.
    only
        These parts alone, with commas: steady, faults, thin, database.
    quick
        Much smaller, in a minute: whether it works here. Its figures are of no use.
    seed
        What writes and instants are drawn from.
    link
        How distances are emulated.
    memory
        Keep replicas' files in memory, which nothing is flushed to; a pool's are on the disk all the same.
    out
        Directory of the results; by default a new one below results/runs.
    page
        Write the case to this file as one HTML page too.
    json
        Print what was observed, and what it comes to, as a document.
    verbose
        Say more on stderr of what is being done.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..workload import case_profile as cases

    refuse_both(verbose, quiet)
    check_texts(out, page)
    if page is not None:
        from .html import check_place

        check_place(page, "--page")
    if not 0 <= seed < SEEDS_MAX:
        raise UsageError("--seed must not be negative, and below 2^63.")
    if not name:
        with printing():
            for one in cases.shipped():
                print(f"{one:12}{cases.load(one).title}")
        return EXIT_DONE
    if name.endswith((".json", f".json{SUFFIX}")):
        from ..analysis.case_recording import read

        return present(read(Path(name)), page, name, json)
    asked = cases.load(name)
    parts = parts_of(only, asked.parts)
    place = measured(Path(name).stem, asked, parts, quick, seed, link, memory, out, verbose, quiet)

    from ..analysis.case_recording import FILE, read

    made = read(place / FILE)
    if not quiet:
        print(f"saved: {found_at(place / FILE)}", file=sys.stderr)
    code = present(made, page, str(place / FILE), json)
    return exit_code() if made.interrupted else code


def parts_of(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The parts that are to be measured. UsageError for one that the case has not."""
    from ..base.errors import nearest

    words = tuple(word.strip() for word in text.split(",")) if text else known
    for word in words:
        if word not in known:
            raise UsageError(f'--only: this case has no part "{word}"{nearest(word, known)}: {", ".join(known)}.')
    return tuple(word for word in known if word in words)


def measured(
    name: str, case: object, parts: tuple[str, ...], quick: bool, seed: int, link: str, memory: bool, out: Path | None,
    verbose: bool, quiet: bool,
) -> Path:  # fmt: skip
    """The directory with what was observed."""
    from ..workload.case_profile import Case
    from ..workload.case_profile import quick as smaller

    assert isinstance(case, Case)
    with bar(verbose, quiet) as progress:
        from ..experiment.compilation import compile_all, compile_doors, compile_link

        compile_all(progress)
        if {"thin", "database"} & set(parts):
            compile_doors(progress)
            compile_link(progress)
        from ..experiment.case import measure
        from ..experiment.run_journal import directory_for

        made = smaller(case) if quick else case
        place = directory_for(out, f"case-{name}")
        progress.expect(measure.expected_s(made, parts))
        measure.measure_case(measure.Asked(name, made, parts, place, link, memory, quick, seed, verbose), progress)
    return place


def present(made: object, page: Path | None, source: str, json: bool) -> int:
    """The case on stdout and on its page, and the exit code that it comes to."""
    from ..analysis.case_answer import lines_of, sections_of
    from ..analysis.case_recording import CaseRecording

    assert isinstance(made, CaseRecording)
    if page is not None:
        from ..report.case_page import page_of_case
        from .html import save

        save(page_of_case(made, source), page)
    with printing():
        if json:
            print_document({
                "recording": made, "answer": [line._asdict() for line in lines_of(made)],
                "sections": [
                    one._asdict() | {"figures": [figure._asdict() for figure in one.figures]} for one in sections_of(made)
                ],
            })  # fmt: skip
        else:
            from ..report.case import show_case
            from ..report.page import Page

            show_case(Page(console()), made)
    cells = made.steady.cells if made.steady else []
    lost = (made.faults.lost + made.faults.damaged if made.faults else 0) + sum(cell.lost or 0 for cell in cells)
    if lost:
        return EXIT_LOST_WRITE
    return EXIT_DONE if any(getattr(made, part) is not None for part in made.case.parts) else EXIT_INCONCLUSIVE
