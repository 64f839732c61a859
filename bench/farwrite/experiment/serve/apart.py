"""The voters of one machine of a volume whose others stand on other machines: they are started, watched and ended as in a lab.

There is no lab: an address is a machine's own, and nothing holds packets back. Both ends of every connection between voters
prove the volume's key, and TLS encrypts it. On the near machine this looks after near (and the witness, where that is not
elsewhere), on another one after the far replica or the witness alone.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

from ...base.physics import Distance
from ...base.wire.congestion import state_congestion
from ...base.wire.terms import Terms
from ...engine.control import Address
from ...lab.process import Process, process
from ...lab.topology import Leg
from ...workload.drill_scenario import SITES
from ...workload.link_spec import PLAIN
from ..voters import terms_of
from .replica import BOARD_WORDS
from .server import Asked, Server
from .volume_files import Files, Settings

NOWHERE = Leg(SITES[0], SITES[1], Distance(0.0, 0), PLAIN)  # No distance is asked for: it is as far as it is.
REAL = "real"


class Apart(Server):
    """The voters of a served volume that are here."""

    encryption = "tls"

    def __init__(
        self, stack: contextlib.ExitStack, settings: Settings, files: Files, asked: Asked, sockets: Path, here: Sequence[str],
        key: bytes, tcp: socket.socket | None = None, iscsi: socket.socket | None = None,
    ) -> None:  # fmt: skip
        # Not Server's own: that builds on a lab.
        self.take_seats(stack, key, settings.replicas, settings.has_witness, BOARD_WORDS, files.disks, files.ballots)
        self.take_doors(settings, asked, sockets, tcp, iscsi)
        self.here = tuple(name for name in self.voters if name in here)
        self.addresses, self.witness, self.portals = {}, None, {}
        with socket.socket() as trial:
            self.congestion = state_congestion(trial)

    @property
    def terms(self) -> Terms:
        """What every connection between voters demands."""
        return terms_of(self.key, self.encryption)

    def seen_from(self, name: str) -> tuple[dict[str, Address], Address | None]:
        """(the replicas, the witness) as they are reached from this machine."""
        return dict(self.addresses), self.witness

    def process_for(self, name: str) -> Process:
        """A new process of this machine; what it holds is given back when it ends."""
        own = self.stacks[name] = contextlib.ExitStack()
        return own.enter_context(process(name))

    def downs(self) -> list[str]:
        """Voters of this machine that do not run."""
        return [name for name in self.here if name not in self.processes]

    def link_kind(self) -> str:
        return REAL
