"""The client of NBD as tests use it: an address, and of each write whether it was answered."""

from __future__ import annotations

from farwrite.engine.frontend import nbd_client

NAME = b"volume"


class NbdClient(nbd_client.NbdClient):
    """One connection to a door at this path, or this (host, port)."""

    def __init__(self, address, name=NAME, limit_s=30.0, contexts=()):
        super().__init__(nbd_client.Place(address, name.decode()), contexts, limit_s)
