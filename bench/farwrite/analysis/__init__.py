"""From a recording to estimates and verdicts. Reads recordings only; the same file always gives the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..recording import Recording, Report
    from .result import Analysis


def analysis_of(report: Report) -> Analysis:
    """The report's stored analysis when this farwrite would make the same one, otherwise a new one from its recording."""
    import msgspec

    from .result import ANALYSIS_VERSION, Analysis

    stored = report.analysis
    if isinstance(stored, Analysis):
        return stored
    if isinstance(stored, dict) and stored.get("version") == ANALYSIS_VERSION:
        try:
            return msgspec.convert(stored, Analysis)
        except msgspec.ValidationError:
            pass  # Edited by hand, or damaged: the recording is what counts.
    from .analyse import analyse

    return analyse(report.recording)


def document_of(recording: Recording) -> Report:
    """The document of a recording: with its analysis and its answer."""
    from ..recording import SCHEMA_VERSION, Report
    from .analyse import analyse
    from .answer import answer_of

    analysis = analyse(recording)
    return Report(
        schema_version=SCHEMA_VERSION, recording=recording, analysis=analysis, answer=answer_of(recording, analysis)
    )


def answered(report: Report) -> Report:
    """The document with the answer that every report of it prints, whichever version of farwrite wrote it."""
    import msgspec

    from .answer import answer_of

    return msgspec.structs.replace(report, answer=answer_of(report.recording, analysis_of(report)))
