"""Hands a logged-in connection over to the loop, and leaves its Python session a relay: a socket for what the loop leaves.

The loop does plain reads and writes by itself (`iscsi_kernel`); the session sees everything else, and everything at all while its
gate is closed.
"""

from __future__ import annotations

import dataclasses
import socket
import threading
from typing import NamedTuple

from .. import iscsi_state
from .. import session_kernel as sessions
from ..frontend import Frontend
from .login import Login, Terms
from .target import COMMAND_WINDOW, Target

RELAYED_SEGMENT_BYTES = 32 << 10  # A PDU of Python's passes through the loop's memory whole.


class Gates:
    """The slots of a frontend's gates. A slot is given away again only once its session has ended."""

    def __init__(self, frontend: Frontend) -> None:
        self.frontend, self.lock = frontend, threading.Lock()
        self.free = list(range(iscsi_state.SLOTS))

    def take(self) -> int:
        """A slot whose gate is closed; OSError when there is none."""
        with self.lock:
            if not self.free:
                raise OSError("no more sessions have a place in the loop")
            slot = self.free.pop(0)
        self.set(slot, True)
        return slot

    def set(self, slot: int, is_closed: bool) -> None:
        self.frontend.doors.gate[slot] = 1 if is_closed else 0

    def give(self, slot: int) -> None:
        self.set(slot, True)
        with self.lock:
            self.free.append(slot)


def can_relay(terms: Terms) -> bool:
    """Digests are Python's."""
    return not (terms.header_digest or terms.data_digest)


class Relay(NamedTuple):
    """What a session has in place of its connection, and the terms that hold on that."""

    socket: socket.socket
    terms: Terms


def hand_over(gates: Gates, connection: socket.socket, slot: int, target: Target, login: Login) -> Relay:
    """Give the connection to the loop and its session a relay. OSError when nobody leads."""
    terms, unit = login.terms, target.unit
    ours, theirs = socket.socketpair()
    ours.sendall(iscsi_state.SETUP.pack(
        iscsi_state.SETUP_OPCODE, login.status_sn, login.expected_command_sn, terms.first_burst, terms.max_burst,
        terms.max_outstanding_r2t, terms.initiator_segment, terms.target_segment,
        (0 if terms.initial_r2t else 1) | (2 if terms.immediate_data else 0), COMMAND_WINDOW,
    ))  # fmt: skip
    flags = slot << iscsi_state.SLOT_SHIFT | (sessions.READ_ONLY if unit.disk.is_read_only else 0)
    size = unit.blocks * 512
    taken = gates.frontend.adopt(connection, sessions.ISCSI, flags, size, 512)
    if not (gates.frontend.adopt(theirs, sessions.ISCSI, flags | sessions.INNER | iscsi_state.RELAY, size, 512) and taken):
        ours.close()
        raise ConnectionRefusedError("this replica does not lead")
    segment = min(terms.initiator_segment, RELAYED_SEGMENT_BYTES)
    return Relay(ours, dataclasses.replace(terms, initiator_segment=segment))
