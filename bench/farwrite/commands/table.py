"""Which commands there are, in groups, and what their help says. Each is a function of its own file, loaded when it is typed."""

from __future__ import annotations

from cyclopts import App, Group

from .. import __version__
from ..base.errors import UsageError
from .examples import below

MEASURE, READ, JUDGE, TOOLS = (
    Group(name, sort_key=index)
    for index, name in enumerate(("Measure", "Read and compare reports", "Judge and keep", "The lab and the engine"), 1)
)
ABOUT = Group("About farwrite", sort_key=9)

COMMANDS = {
    "run": ("run:run", MEASURE, "Measure a profile and print the report."),
    "reach": ("reach:reach", MEASURE, "Search for the greatest distance at which a budget holds."),
    "sweep": ("sweep:sweep", MEASURE, "Measure a grid of distances, depths and sizes, and draw it as a heat map."),
    "ab": ("ab:ab", MEASURE, "Run two versions, profiles or settings side by side in one lab and compare them."),
    "drill": ("drill:drill", MEASURE, "Play a fault under load, again and again: what was lost, and how long it took."),
    "case": ("case:case", MEASURE, "Measure a whole system, such as a campus or a database's two sites, and answer on one page."),
    "profiles": ("show:profiles", MEASURE, "List the profiles that come with farwrite."),
    "trace": ("trace:trace", MEASURE, "Look at recorded I/O, and make it fit: info, convert."),
    "show": ("show:show", READ, "Print a report again, from its file alone."),
    "html": ("html:html", READ, "Write a report as one HTML page."),
    "compare": ("compare:compare", READ, "Compare two reports, or several of each: what changed, and how sure that is."),
    "history": ("history:history", READ, "Draw how a metric went from run to run, and name the runs at which it changed."),
    "export": ("export:export", READ, "Write a report's latencies as HdrHistogram's tools read them."),
    "import": ("import_:import_files", READ, "Read results of fio, HdrHistogram, k6 or pytest-benchmark as a result set."),
    "gate": ("gate:gate", JUDGE, "Hold a report against budgets: pass, fail or unknown."),
    "budget": ("budget:budget", JUDGE, "Propose budgets from measured noise."),
    "baseline": ("baseline:baseline", JUDGE, "Keep a run as the one that others are held against, and list those kept."),
    "serve": ("serve:serve", TOOLS, "Serve a replicated volume, its second copy a distance away, to real clients over NBD."),
    "snapshot": ("snapshot:snapshot", TOOLS, "Take, list, schedule and delete snapshots of a served volume."),
    "copy": ("copy:copy", TOOLS, "Copy a served volume to another at any distance: in full, then what changed."),
    "pool": ("pool:pool", TOOLS, "Make and serve a pool of storage nodes; add, drain and balance them while clients write."),
    "volume": ("volume:volume", TOOLS, "Make, grow, list and delete a pool's volumes; tell what a replica's files hold."),
    "migrate": ("migrate:migrate", TOOLS, "Move a volume's copy to another node of its pool, while clients write."),
    "lab": ("lab:lab", TOOLS, "Run any command, or a shell, at one end of an emulated distance."),
    "trips": ("trips:trips", TOOLS, "Tell how many round trips a write of a size waits for, over NBD and iSCSI."),
    "survey": ("survey:survey", TOOLS, "Prove what a link over a distance delivers here, against what was asked."),
    "doctor": ("doctor:doctor", TOOLS, "Say what this machine can emulate, how well, and what mends it."),
    "simulate": ("simulate:simulate", TOOLS, "Search the engine for lost writes: crashes and cuts in a pretend world."),
    "schema": ("show:schema", ABOUT, "Print the JSON Schema of the report document, or of a profile."),
}
# An App of their own, which says itself what stands below its help.
FAMILIES = ("trace", "budget", "baseline", "volume", "snapshot", "pool")
HIDDEN = {
    "arm": "arm:arm",  # What farwrite ab starts.
    "serve-cells": "serve_cells:serve_cells",  # What farwrite sweep --dask starts.
    "far-site": "far_site:far_site",  # What farwrite run --far starts.
    "far-voter": "far_voter:far_voter",  # What farwrite serve --far starts.
}

app = App(
    name="farwrite",
    help="How far away can the second copy of a write be? Durable replicated writes, measured across emulated miles.",
    version=__version__,
    help_format="plaintext",
    help_on_error=False,
    help_epilogue=below(""),
    suppress_keyboard_interrupt=False,  # main() knows 143 from 130.
)
for name, (place, group, sentence) in COMMANDS.items():
    own = {} if name in FAMILIES else {"help_epilogue": below(name)}
    app.command(f"farwrite.commands.{place}", name=name, group=group, help=sentence, **own)
for name, place in HIDDEN.items():
    app.command(f"farwrite.commands.{place}", name=name, show=False)
app.command(
    "farwrite.commands.completion:install_completion", name="--install-completion", group=ABOUT,
    help="Have your shell complete commands, options and names.",
)
app["--help"].group = app["--version"].group = ABOUT


@app.command(name="help", group=ABOUT, help_epilogue=below("help"))
def help_(*command: str) -> None:
    """Explain a command, as its --help does; without one, list them.

    Parameters
    ----------
    command
        Such as "run" or "trace info".
    """
    _, _, unknown = app.parse_commands(command)
    if unknown:
        raise UsageError(f'there is no command "{" ".join(command)}": "farwrite help" lists them.')
    app.help_print(command)
