"""Our own volume behind its NBD door, as `farwrite serve` keeps one: a replica at each site, written to by the client of QEMU's.

Beside the engine's own generator the difference is the door: one socket more, and a processor that another process shares.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farwrite import __version__
from farwrite.base.errors import UnfitError
from farwrite.base.physics import distance
from farwrite.base.units import NS_PER_S
from farwrite.experiment.run_journal import Run
from farwrite.experiment.serve.replica import VOLUME
from farwrite.experiment.serve.server import Asked, Server
from farwrite.experiment.serve.volume_files import Settings, new_files, new_number
from farwrite.lab.lab import Lab
from farwrite.lab.topology import Leg
from farwrite.targets.load_loop_kernel import Recorder
from farwrite.workload.drill_scenario import SITES
from farwrite.workload.link_spec import PLAIN

from . import nbd
from .experiment import Rival, Task

NAME = "door"
WHAT = "durable at both; written over NBD by the client that is QEMU's as well, through the door of farwrite serve"
CONNECTIONS: dict[str, socket.socket] = {}  # In the near site's process: to the door.
PEER_TIMEOUT_NS = 10 * NS_PER_S  # Rounds at 3 000 miles come in between, and nobody is to be given up.


@contextmanager
def door(run: Run, lab: Lab) -> Iterator[Rival]:
    """The served volume, running exactly as long as this block."""
    size = run.profile.lab.volume_bytes
    settings = Settings(
        volume=new_number(), size_bytes=size, replicas=2, has_witness=False, protocol="C", policy="block", quorum=0,
        peer_timeout_ns=PEER_TIMEOUT_NS, link={},
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farwrite-door-")))
        files = stack.enter_context(new_files(settings, Path(lab.near.disk.directory), keep=False))
        asked = Asked(leg=Leg(SITES[0], SITES[1], distance(0.0), PLAIN), link="", restarts=False, is_quiet=True)
        server = Server(stack, lab, settings, files, asked, sockets)
        server.open()
        stack.callback(server.end)
        lab.near.call(open_client, str(sockets / f"{SITES[0]}.sock"))
        stack.callback(lab.near.call, close_client)
        yield Rival(NAME, WHAT, f"farwrite {__version__}", run, lab, lambda task: lab.near.call(drive, task))


def open_client(path: str) -> None:
    """In the near site: hold a connection to the door."""
    CONNECTIONS[NAME], _ = nbd.connect(socket.AF_UNIX, path, VOLUME)


def drive(task: Task) -> Recorder:
    """In the near site: one round."""
    if NAME not in CONNECTIONS:
        raise UnfitError("The connection to the door went with the site's process, which was started anew.")
    return nbd.drive(CONNECTIONS[NAME], task)


def close_client() -> None:
    """In the near site: hang up."""
    if NAME in CONNECTIONS:
        CONNECTIONS.pop(NAME).close()
