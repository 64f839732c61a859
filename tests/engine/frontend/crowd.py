"""A primary with an NBD door and an iSCSI portal on loopback, in a process of its own: for crowds of clients that come to it.

    python crowd.py LIMIT_S

Prints both ports once it serves, and ends with its standard input. LIMIT_S is how long a stranger may take.
"""

# ruff: noqa: E402 (the tests' helpers lie beside each other)

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "engine" / "frontend" / "iscsi"), str(TESTS.parent / "bench")]

from initiator import TARGET

from farwrite.base.wire.door import BACKLOG
from farwrite.engine.frontend import session_kernel as sessions
from farwrite.engine.frontend.iscsi import engine_volume, pages, portal, relay, scsi, target
from farwrite.engine.frontend.nbd_door import nbd_door
from farwrite.engine.frontend.nbd_negotiation import Export
from served import VOLUME_BYTES, Served


def main() -> None:
    limit_s = float(sys.argv[1])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = sessions.SESSIONS_MAX + 512  # As a replica has it (experiment/serve/replica.py).
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(hard, wanted), hard))
    logging.getLogger().addHandler(logging.NullHandler())
    with contextlib.ExitStack() as stack:
        served = Served(stack)
        disk = engine_volume.EngineVolume(served.frontend, VOLUME_BYTES)
        unit = scsi.LogicalUnit(disk, pages.Identification(7, TARGET))
        gates = relay.Gates(served.frontend)
        opened = stack.enter_context(portal.portal(target.Target(TARGET, unit), login_s=limit_s, gates=gates))
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))

        def adopt(connection, chosen):
            served.frontend.adopt(connection, sessions.NBD, 0, chosen.export.size_bytes)

        stack.enter_context(nbd_door(listening, (Export("volume", VOLUME_BYTES),), adopt, limit_s=limit_s))
        print(listening.getsockname()[1], opened.address[1], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
