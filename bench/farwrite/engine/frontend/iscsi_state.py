"""What the loop knows of iSCSI sessions beside their `Session` rows: numbers, terms, and writes whose data is still coming.

A logged-in connection has two rows: the initiator's, and a *relay* to the Python session behind it (iscsi/session.py), which
answers whatever the loop does not. They are joined by a slot that Python gives to each session, and its `gate`: while that is not
0 the loop leaves every command to Python (a unit attention is due, a reservation or write protection may forbid it).
"""

from __future__ import annotations

import struct

from ...base.row import Row, i64

SLOTS = 256  # Sessions that Python may have at a time.
TASKS = 64  # Writes of one session whose data is still coming: the window of commands.

# Flags of a session's row, behind those that all doors share.
RELAY, CHANNEL = 1 << 8, 1 << 9
SLOT_SHIFT = 16

# The first PDU that Python sends on a relay: an opcode of no target's, then these words.
SETUP_OPCODE = 0x3E
# And one by which Python has the loop forget the writes whose data is still coming; it comes back once all others are answered.
DROP_OPCODE = 0x3D
# A reserved byte of task management requests: in a relayed ABORT TASK it is 1 when the loop had that write, and ended it.
ABORTED_AT = 2
SETUP = struct.Struct(">B7x 9I 4x")  # what Wire has of it, in its order; 48 bytes
assert SETUP.size == 48

# A channel's requests, for what NBD has no word for: compare-and-write.
ASK = struct.Struct(">IIqqq")  # magic, reserved, tag, address, size; then what must be there, then what is written
TOLD = struct.Struct(">IIqq")  # magic, error, tag, mismatch: bytes into the comparison, -1 when it was written
ASK_MAGIC, TOLD_MAGIC = 0x46434157, 0x46434158
COMPARE_BYTES_MAX = 16 << 10


class Wire(Row):
    """One row's part of an iSCSI session; the index is the session's."""

    number = i64("of the handover for which this row is set up")
    partner = i64("index of the other row and 1; 0: there is none")
    partner_generation = i64("of that row")
    slot = i64("place of its gate")
    status_sn = i64("StatSN of the next answer")
    expected_sn = i64("CmdSN of the next command")
    window_end = i64("MaxCmdSN as it was told last: it never goes back")
    first_burst = i64("FirstBurstLength")
    max_burst = i64("MaxBurstLength, a multiple of 512")
    max_outstanding = i64("MaxOutstandingR2T")
    initiator_segment = i64("MaxRecvDataSegmentLength of the initiator, a multiple of 512")
    target_segment = i64("ours")
    unasked = i64("1: InitialR2T=No; and 2: ImmediateData=Yes")
    window = i64("commands that may be under way")
    relay_sn = i64("CmdSN of the next command that goes to Python")
    relayed = i64("commands under way with Python, as it has told")
    counted = i64("commands under way with the loop")
    in_order = i64("1: an ORDERED command is with Python, and everything goes there until it is done")
    task = i64("BODY: place of its task; -1: the command is all there is to it")
    padding = i64("bytes to pass over behind the data segment")
    ends = i64("BODY: 1: the command has all its data with it")
    read_tag = i64("STREAM: initiator task tag")
    read_at = i64("STREAM: bytes of the read that went before")
    read_bytes = i64("STREAM: bytes of the read")
    read_address = i64("STREAM: byte offset in the volume of the read")
    read_burst = i64("STREAM: bytes of the burst that went before")
    data_sn = i64("STREAM: DataSN of the next Data-In")


class Task(Row):
    """A write whose data is still coming."""

    is_used = i64("1: there is one")
    tag = i64("initiator task tag")
    address = i64("byte offset in the volume")
    needed = i64("bytes that it writes")
    received = i64("bytes that have come, from the first on")
    data_sn = i64("DataSN of the next Data-Out of this burst")
    takes_unasked = i64("1: unsolicited data is still to come")
    burst_end = i64("bytes at which the burst that is coming ends")
    bursts_asked = i64("R2Ts sent")
    bursts_done = i64("and answered whole")
    asked = i64("bytes up to which data came unasked or was asked for")
