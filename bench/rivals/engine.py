"""farwrite's own engine as a contender: the project's own round, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from farwrite import __version__
from farwrite.experiment.cells import cells_of
from farwrite.experiment.round import measure_cell
from farwrite.experiment.run_journal import Run
from farwrite.lab.lab import Lab
from farwrite.recording import Cell, Round

WHAT = {
    "C": "durable at both", "B": "durable near, received far", "A": "durable near, in the send buffer", "local": "durable near",
}  # fmt: skip


@dataclass
class Engine:
    """Every cell of the run's profile."""

    run: Run
    span: Lab
    name: str = "farwrite"
    what: str = WHAT["C"]
    version: str = f"farwrite {__version__}"

    @property
    def cells(self) -> list[Cell]:
        """As the profile asks for them."""
        return cells_of(self.run.profile)

    def round(self, cell: Cell, index: int, attempt: int) -> Round:
        """One cell, once."""
        return measure_cell(self.run, self.span, cell, index, attempt)
