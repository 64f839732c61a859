"""The command line: which commands there are, what an error looks like, and the one exit.

Every command is a function of its own file below `commands`, loaded when it is typed: `--help` loads none of them.
"""

from __future__ import annotations

import signal
import sys

from cyclopts import App, CycloptsError

from . import __version__
from .commands.output import abandon_stdout, interrupted_by, stop_on
from .errors import EXIT_CRASH, EXIT_DONE, EXIT_USAGE, FarwriteError

app = App(
    name="farwrite",
    help="How far away can the second copy of a write be? Durable replicated writes, measured across emulated miles.",
    version=__version__,
    help_format="plaintext",
    help_on_error=False,
    suppress_keyboard_interrupt=False,  # main() knows 143 from 130.
)

COMMANDS = {
    "run": ("run:run", "Measure a profile and print the report."),
    "reach": ("reach:reach", "Search for the greatest distance at which a budget holds."),
    "sweep": ("sweep:sweep", "Measure a grid of distances, depths and sizes, and draw it as a heat map."),
    "ab": ("ab:ab", "Run two versions, profiles or settings side by side in one lab and compare them."),
    "show": ("show:show", "Print a report again, from its file alone."),
    "html": ("html:html", "Write a report as one HTML page."),
    "compare": ("compare:compare", "Compare two reports, or several of each: what changed, and how sure that is."),
    "export": ("export:export", "Write a report's latencies as HdrHistogram's tools read them."),
    "trace": ("trace:trace", "Look at recorded I/O, and make it fit: info, convert."),
    "import": ("import_:import_files", "Read results of fio, HdrHistogram, k6 or pytest-benchmark as a sheet of figures."),
    "gate": ("gate:gate", "Hold a report against budgets: pass, fail or unknown."),
    "budget": ("budget:budget", "Propose budgets from measured noise."),
    "history": ("history:history", "Draw how a metric went from run to run, and name the runs at which it changed."),
    "survey": ("survey:survey", "Prove what a link over a distance delivers here, against what was asked."),
    "baseline": ("baseline:baseline", "Keep a run as the one that others are held against, and list those kept."),
    "volume": ("volume:volume", "Tell what a replica's journal and volume hold."),
    "lab": ("lab:lab", "Run any command, or a shell, at one end of an emulated distance."),
    "doctor": ("doctor:doctor", "Say what this machine can emulate, how well, and what mends it."),
    "simulate": ("simulate:simulate", "Search the engine for lost writes: crashes and cuts in a pretend world, from seeds."),
    "profiles": ("show:profiles", "List the profiles that come with farwrite."),
    "schema": ("show:schema", "Print the JSON Schema of the report document."),
}
for name, (place, sentence) in COMMANDS.items():
    app.command(f"farwrite.commands.{place}", name=name, help=sentence)
app.command("farwrite.commands.arm:arm", name="arm", show=False)  # What farwrite ab starts.
app.command("farwrite.commands.serve_cells:serve_cells", name="serve-cells", show=False)  # What farwrite sweep --dask starts.
app.command("farwrite.commands.far_site:far_site", name="far-site", show=False)  # What farwrite run --far starts.


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, stop_on)
    try:
        code = app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # Here, where a closed pipe is caught, and not while the interpreter ends.
    except CycloptsError as refusal:
        print(f"farwrite: {refusal}", file=sys.stderr)
        code = EXIT_USAGE
    except FarwriteError as refusal:
        print(f"farwrite: {refusal}", file=sys.stderr)
        code = refusal.exit_code
    except SystemExit as leaving:  # How rich answers to a closed pipe while it prints the help.
        code = EXIT_DONE if isinstance(leaving.__context__, BrokenPipeError) else leaving.code
        abandon_stdout()
    except KeyboardInterrupt:
        print("farwrite: interrupted before anything was measured.", file=sys.stderr)
        code = interrupted_by()
    except BrokenPipeError:
        abandon_stdout()
        code = EXIT_DONE
    except Exception:
        import traceback

        traceback.print_exc()
        print("farwrite: this is our own fault; please report it with the lines above.", file=sys.stderr)
        code = EXIT_CRASH
    sys.exit(code if isinstance(code, int) else EXIT_DONE)


if __name__ == "__main__":
    main()
