"""iSCSI in its full feature phase: what the loop does of it. (A seam: the target's own work replaces it.)"""

from __future__ import annotations

from ...base.jit import kernel


@kernel()
def serve(doors, primary, index, now_ns):
    """Take what stands in the session's inbox; a negative answer ends the connection.

    Called when something has arrived, or when there is room again. Takes requests from inbox[in_begin:in_end] and moves
    in_begin; lays answers with session.lay; owes an answer with session.owe. What is not whole yet stays.
    """
    return -1


@kernel()
def pay(doors, primary, index, debt, now_ns):
    """Lay the answer to a request whose write is complete (a row of Owed) into the session's outbox, ANSWER_BYTES_MAX at most."""


@kernel()
def streamed(doors, primary, index, now_ns):
    """What begin_stream() was asked for is sent: lay what follows it, and begin the next stream or set the state to HEADER."""
    doors.session[index].state = 0


@kernel()
def answered(doors, primary, index, number, now_ns):
    """The Python thread has answered (lane `number`, lane_bytes[number]): lay it, or make of it what is to be done."""
