"""The command line: what an error looks like, what an interruption is, and the one exit. `commands/table.py` has the commands.

Nothing heavy is loaded before `main` can catch an interruption, and no part of a command before it is typed.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

from .base.errors import EXIT_CRASH, EXIT_DONE, EXIT_UNFIT, EXIT_USAGE, FarwriteError
from .base.interruption import exit_code, heed_signals
from .commands.output import abandon_stdout, ready_streams

WORLD = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)


def __getattr__(name: str) -> Any:
    """`cli.app`, loaded when it is asked for."""
    if name == "app":
        from .commands.table import app

        return app
    raise AttributeError(name)


def main() -> None:
    """Entry point of the console script."""
    try:
        heed_signals()
        ready_streams()
        code = ended(sys.argv[1:])
    except KeyboardInterrupt:
        say("interrupted before anything was measured.")
        code = exit_code()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # What is left is the interpreter's end, which would print a traceback.
    sys.exit(code)


def ended(words: list[str]) -> int:
    """The exit code of a command, once what went wrong has been said."""
    from cyclopts import CycloptsError

    from .commands.table import app

    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # Here, where a closed pipe is caught, and not while the interpreter ends.
    except CycloptsError as refusal:
        from .commands.words import in_our_words

        say(in_our_words(refusal))
        return EXIT_USAGE
    except FarwriteError as refusal:
        say(str(refusal))
        return refusal.exit_code
    except SystemExit as leaving:  # How rich answers to a closed pipe while it prints the help.
        code = EXIT_DONE if isinstance(leaving.__context__, BrokenPipeError) else leaving.code
        abandon_stdout()
    except BrokenPipeError:
        abandon_stdout()
        return EXIT_DONE
    except Exception as failure:
        if isinstance(failure, OSError) and failure.errno in WORLD:
            place = f"{failure.filename}: " if failure.filename else ""
            say(f"{place}{os.strerror(failure.errno)}. The system refused this; nothing here is broken: make room and try again.")
            return EXIT_UNFIT
        import traceback

        traceback.print_exc()
        say("this is our own fault; please report it with the lines above.")
        return EXIT_CRASH
    return code if isinstance(code, int) else EXIT_DONE


def say(sentence: str) -> None:
    """One line on stderr, in our name."""
    print(f"farwrite: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
