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
def pay(doors, index, debt, now_ns):
    """Lay the answer to a request whose write is complete (a row of Owed) into the session's outbox, ANSWER_BYTES_MAX at most."""
    return 0
