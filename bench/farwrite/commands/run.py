"""`farwrite run`: measure a profile and print the report."""

from __future__ import annotations

import sys

from ..options import ANYWHERE, Options
from .measuring import NEW, PLAIN, Session, Showing, check_texts, measured


def run(
    profile: str = "limits",
    *,
    options: Options = ANYWHERE,
    duration: str | None = None,
    far: str | None = None,
    session: Session = NEW,
    showing: Showing = PLAIN,
) -> int:
    """Measure a profile and print the report.

    Parameters
    ----------
    profile
        Name of a shipped profile (see "farwrite profiles"), or path of a TOML file or of a fio job file (.fio).
    duration
        Length of each round, such as "2 s"; short for --set run.round=...
    far
        A machine for the far site, as ssh://host[:port][/directory]: the link to it is measured, not emulated. Short for
        --set lab.far_host=...
    """
    from ..cells import cells_of
    from ..profile import Change, find, load

    check_texts(profile)
    if session.continues(duration, far, options.given()):
        return measured(None, profile, session, showing)
    asked = options.change(session.set_)
    changes: list[Change] = [*session.changes]
    changes += [f'run.round="{duration}"'] if duration else []
    changes += [f'lab.far_host="{far}"'] if far else []
    changes.append(asked)
    bent: list[str] = []
    if profile.endswith(".fio"):
        from ..fio_job import translate

        translated = translate(find(profile), changes)
        chosen, bent = translated.profile, translated.sentences()
        if not showing.quiet:
            print("\n".join(translated.lines()), file=sys.stderr)
    else:
        chosen = load(profile, changes)
    cells_of(chosen)  # A trace that cannot be read is refused before anything is compiled or written.
    return measured(chosen, profile, session, showing, [*bent, *asked.merged])
