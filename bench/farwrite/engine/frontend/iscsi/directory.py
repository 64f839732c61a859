"""One address for the targets of many volumes: discovery lists them all, and a login is sent to its portal.

Nothing is served here. Each target has a portal at a port of its own, where whoever leads that volume listens, so an initiator
needs to know one address, wherever its volume is led.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .chap import Credentials
from .login import Identity, Joined, Rules
from .pages import Identification
from .scsi import LogicalUnit
from .target import COMMAND_WINDOW, Target
from .volume import Channel


class NoVolume:
    """What stands behind a directory: nothing that could be opened."""

    bytes, is_read_only = 0, True

    def open(self) -> Channel:
        raise ConnectionRefusedError("nothing is served here")


class Directory(Target):
    """Targets by name, each with the port of its portal at this host: `ports` is looked at for each login."""

    def __init__(self, ports: Mapping[str, int], credentials: Credentials | None = None) -> None:
        super().__init__("", LogicalUnit(NoVolume(), Identification(0, "")), credentials=credentials)
        self.ports = ports

    def rules(self, join: Callable[[Identity], Joined], here: str) -> Rules:
        ports = dict(self.ports)
        return Rules(
            frozenset(ports), join, self.portal_group, self.offer, self.credentials, self.initiators,
            lambda target: f"{here}:{ports[target]}", COMMAND_WINDOW,
        )  # fmt: skip

    def listed(self, here: str, port: int) -> dict[str, list[str]]:
        """All of them at this address, which stays the same: their own ports may be others when they are served again."""
        return {name: [f"{here}:{port}"] for name in sorted(self.ports)}
