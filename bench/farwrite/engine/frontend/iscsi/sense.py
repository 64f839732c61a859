"""How a SCSI command ends: a status, data, and sense that says why not (SPC-4 section 4.5, fixed format)."""

from __future__ import annotations

from typing import NamedTuple

GOOD, CHECK_CONDITION, BUSY, RESERVATION_CONFLICT, TASK_SET_FULL = 0x00, 0x02, 0x08, 0x18, 0x28

NO_SENSE, NOT_READY, MEDIUM_ERROR, HARDWARE_ERROR, ILLEGAL_REQUEST, UNIT_ATTENTION, DATA_PROTECT = 0, 2, 3, 4, 5, 6, 7
ABORTED_COMMAND, MISCOMPARE = 0xB, 0xE


class Sense(NamedTuple):
    """Sense key, additional code and qualifier; the information field where one is valid."""

    key: int
    code: int  # additional sense code and its qualifier, 0x2400 for 24h/00h
    information: int | None = None

    def fixed(self) -> bytes:
        """Eighteen bytes: a current error in fixed format, as the control mode page says (D_SENSE 0)."""
        valid = self.information is not None and self.information < 1 << 32
        information = (self.information or 0) if valid else 0
        return (
            bytes([0x70 | (0x80 if valid else 0), 0, self.key]) + information.to_bytes(4, "big") + bytes([10, 0, 0, 0, 0])
            + self.code.to_bytes(2, "big") + bytes(4)
        )  # fmt: skip


class Answer(NamedTuple):
    """The end of a command: data for the initiator, or why there is none."""

    status: int = GOOD
    data: bytes | bytearray | memoryview = b""
    sense: Sense | None = None


def check(key: int, code: int, information: int | None = None) -> Answer:
    return Answer(CHECK_CONDITION, b"", Sense(key, code, information))


# What is answered often, by name. Additional sense codes: SPC-4 annex F.
INVALID_OPCODE = check(ILLEGAL_REQUEST, 0x2000)
OUT_OF_RANGE = check(ILLEGAL_REQUEST, 0x2100)
INVALID_FIELD = check(ILLEGAL_REQUEST, 0x2400)
NO_LOGICAL_UNIT = check(ILLEGAL_REQUEST, 0x2500)
INVALID_PARAMETER = check(ILLEGAL_REQUEST, 0x2600)
INVALID_RELEASE = check(ILLEGAL_REQUEST, 0x2604)
PARAMETER_LENGTH = check(ILLEGAL_REQUEST, 0x1A00)
INFORMATION_UNIT = check(ILLEGAL_REQUEST, 0x0E03)
SAVING_UNSUPPORTED = check(ILLEGAL_REQUEST, 0x3900)
NO_REGISTRATION_ROOM = check(ILLEGAL_REQUEST, 0x5504)
MEDIUM_PRESENT_NOT_REMOVABLE = check(ILLEGAL_REQUEST, 0x2400)
WRITE_PROTECTED = check(DATA_PROTECT, 0x2700)
NO_SPACE = check(DATA_PROTECT, 0x2707)
STANDBY = check(NOT_READY, 0x040B)
NOT_READY_NOW = check(NOT_READY, 0x0400)
READ_ERROR = check(MEDIUM_ERROR, 0x1100)
WRITE_ERROR = check(MEDIUM_ERROR, 0x0C00)
# Conditions of iSCSI, RFC 7143 section 11.4.7.2.
UNEXPECTED_DATA, WRONG_AMOUNT = check(ABORTED_COMMAND, 0x0C0C), check(ABORTED_COMMAND, 0x0C0D)
OUT_OF_SEQUENCE = check(ABORTED_COMMAND, 0x4705)  # protocol service CRC error: data was lost on its way
CONFLICT = Answer(RESERVATION_CONFLICT)

# Unit attentions.
POWER_ON, LUN_RESET, NEXUS_LOSS = Sense(UNIT_ATTENTION, 0x2900), Sense(UNIT_ATTENTION, 0x2903), Sense(UNIT_ATTENTION, 0x2907)
MODE_CHANGED, RESERVATIONS_PREEMPTED = Sense(UNIT_ATTENTION, 0x2A01), Sense(UNIT_ATTENTION, 0x2A03)
RESERVATIONS_RELEASED, REGISTRATIONS_PREEMPTED = Sense(UNIT_ATTENTION, 0x2A04), Sense(UNIT_ATTENTION, 0x2A05)
ACCESS_STATE_CHANGED, CAPACITY_CHANGED = Sense(UNIT_ATTENTION, 0x2A06), Sense(UNIT_ATTENTION, 0x2A09)
SOFT_THRESHOLD = Sense(UNIT_ATTENTION, 0x3807)  # thin provisioning soft threshold reached
COMMANDS_CLEARED = Sense(UNIT_ATTENTION, 0x2F00)
