"""Reservations of a logical unit: PERSISTENT RESERVE IN and OUT (SPC-4 sections 5.13, 6.15, 6.16) and RESERVE(6) of SPC-2.

`Reservations` is the state and all service actions on it, pure: a nexus and parameters go in; the status, the unit attentions for
others and the nexuses whose tasks are aborted come out. `image` and `restored` turn it into bytes and back, for whoever keeps it.
A nexus is an initiator port, "name,i,0xISID" as its TransportID has it; there is one target port group member at a time.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

from . import sense
from .sense import Answer, Sense

WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS = 1, 3
WRITE_EXCLUSIVE_REGISTRANTS, EXCLUSIVE_ACCESS_REGISTRANTS, WRITE_EXCLUSIVE_ALL, EXCLUSIVE_ACCESS_ALL = 5, 6, 7, 8
TYPES = (1, 3, 5, 6, 7, 8)
TYPE_MASK = 0b1110_1010, 0b0000_0001  # REPORT CAPABILITIES: all six.

READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, REGISTER_AND_MOVE = range(8)

PARAMETER_BYTES = 24
REGISTRATIONS_MAX = 128
IMAGE_BYTES_MAX = 60 << 10

# What a command does, as reservations see it.
HARMLESS, READS, WRITES, OTHER = "harmless", "reads", "writes", "other"


class Outcome(NamedTuple):
    """What a service action leads to, beside the state."""

    answer: Answer = Answer()
    attentions: tuple[tuple[str, Sense], ...] = ()  # by nexus
    aborted: tuple[str, ...] = ()  # nexuses whose tasks are aborted
    has_changed: bool = False


CONFLICT = Outcome(sense.CONFLICT)


@dataclass
class Reservations:
    """Who has registered with which key, who holds the reservation, and of which type."""

    generation: int = 0
    registrations: dict[str, int] = field(default_factory=dict)  # key by nexus
    holder: str = ""  # a nexus; of the types for all registrants whoever reserved
    kind: int = 0  # 0: no reservation
    keeps: bool = False  # APTPL of the last registration: kept through a loss of power
    reserved_6: str = ""  # the nexus that holds a reservation of RESERVE(6)

    @property
    def is_for_all(self) -> bool:
        return self.kind in (WRITE_EXCLUSIVE_ALL, EXCLUSIVE_ACCESS_ALL)

    def holds(self, nexus: str) -> bool:
        """Whether the reservation is this nexus's."""
        return bool(self.kind) and (nexus in self.registrations if self.is_for_all else nexus == self.holder)

    def refuses(self, nexus: str, does: str) -> bool:
        """Whether a command of this nexus meets a reservation conflict (SPC-4 table 46, SBC-3 table 6)."""
        if does == HARMLESS:
            return False
        if self.reserved_6 and self.reserved_6 != nexus:
            return True
        if not self.kind or self.holds(nexus):
            return False
        if self.kind not in (WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS) and nexus in self.registrations:
            return False
        excludes_writers_only = self.kind in (WRITE_EXCLUSIVE, WRITE_EXCLUSIVE_REGISTRANTS, WRITE_EXCLUSIVE_ALL)
        return not (excludes_writers_only and does == READS)

    # RESERVE(6) and RELEASE(6).

    def reserve_6(self, nexus: str) -> Answer:
        if self.registrations or self.reserved_6 not in ("", nexus):
            return sense.CONFLICT
        self.reserved_6 = nexus
        return Answer()

    def release_6(self, nexus: str) -> Answer:
        if self.reserved_6 == nexus:
            self.reserved_6 = ""
        return Answer()

    # PERSISTENT RESERVE IN.

    def report(self, action: int, can_keep: bool = False) -> bytes | None:
        """The parameter data of a service action of PERSISTENT RESERVE IN; None for an unknown one."""
        if action == READ_KEYS:
            keys = b"".join(key.to_bytes(8, "big") for key in self.registrations.values())
            return self.generation.to_bytes(4, "big") + len(keys).to_bytes(4, "big") + keys
        if action == READ_RESERVATION:
            if not self.kind:
                return self.generation.to_bytes(4, "big") + bytes(4)
            key = 0 if self.is_for_all else self.registrations[self.holder]
            return (
                self.generation.to_bytes(4, "big") + (16).to_bytes(4, "big") + key.to_bytes(8, "big") + bytes(5)
                + bytes([self.kind, 0, 0])
            )  # fmt: skip
        if action == REPORT_CAPABILITIES:
            # ATP_C, and PTPL_C where there is a place; TMV, and PTPL_A as things are now.
            return bytes([0, 8, 0x04 | can_keep, 0x80 | self.keeps, *TYPE_MASK, 0, 0])
        if action == READ_FULL_STATUS:
            body = b"".join(self.full_status_of(nexus, key) for nexus, key in self.registrations.items())
            return self.generation.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body
        return None

    def full_status_of(self, nexus: str, key: int) -> bytes:
        holds = self.holds(nexus)
        transport = transport_id_of(nexus)
        return (
            key.to_bytes(8, "big") + bytes(4) + bytes([0x02 | (1 if holds else 0), self.kind if holds else 0]) + bytes(4)
            + (1).to_bytes(2, "big") + len(transport).to_bytes(4, "big") + transport
        )  # fmt: skip

    # PERSISTENT RESERVE OUT.

    def perform(self, nexus: str, action: int, scope_and_type: int, data: bytes, can_keep: bool) -> Outcome:
        """One service action with its parameter list."""
        if action > REGISTER_AND_MOVE:
            return Outcome(sense.INVALID_FIELD)
        if action == REGISTER_AND_MOVE:
            return self.move(nexus, scope_and_type, data, can_keep)
        if len(data) != PARAMETER_BYTES:
            return Outcome(sense.PARAMETER_LENGTH)
        if self.reserved_6:
            return CONFLICT
        key, service_key = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")
        if action in (REGISTER, REGISTER_AND_IGNORE):
            names_ports, keeps = bool(data[20] & 0x08), bool(data[20] & 0x01)
            if names_ports or (keeps and not can_keep):
                return Outcome(sense.INVALID_PARAMETER)
            return self.register(nexus, None if action == REGISTER_AND_IGNORE else key, service_key, keeps)
        if self.registrations.get(nexus) != key:
            return CONFLICT
        scope, kind = scope_and_type >> 4, scope_and_type & 0x0F
        if action != CLEAR and (scope != 0 or kind not in TYPES):
            return Outcome(sense.INVALID_FIELD)
        if action == RESERVE:
            return self.reserve(nexus, kind)
        if action == RELEASE:
            return self.release(nexus, kind)
        if action == CLEAR:
            return self.clear(nexus)
        return self.preempt(nexus, kind, service_key, aborts=action == PREEMPT_AND_ABORT)

    def register(self, nexus: str, key: int | None, service_key: int, keeps: bool) -> Outcome:
        """`key` None: whatever the nexus is registered with now."""
        if key is not None and self.registrations.get(nexus, 0) != key:
            return CONFLICT
        if service_key == 0:
            if nexus not in self.registrations:
                return Outcome()
            attentions = self.unregister(nexus)
            self.generation = self.next_generation()
            return Outcome(attentions=attentions, has_changed=True)
        if nexus not in self.registrations and len(self.registrations) >= REGISTRATIONS_MAX:
            return Outcome(sense.NO_REGISTRATION_ROOM)
        self.registrations[nexus] = service_key
        self.keeps = keeps
        self.generation = self.next_generation()
        return Outcome(has_changed=True)

    def next_generation(self) -> int:
        return (self.generation + 1) & 0xFFFFFFFF

    def unregister(self, nexus: str) -> tuple[tuple[str, Sense], ...]:
        """Take a registration away; the reservation goes with it when it was its holder's, or the last that held it."""
        held = self.holds(nexus)
        del self.registrations[nexus]
        if not held or (self.is_for_all and self.registrations):
            return ()
        tells = self.kind in (WRITE_EXCLUSIVE_REGISTRANTS, EXCLUSIVE_ACCESS_REGISTRANTS)
        self.holder, self.kind = "", 0
        return tuple((other, sense.RESERVATIONS_RELEASED) for other in self.registrations) if tells else ()

    def reserve(self, nexus: str, kind: int) -> Outcome:
        if self.kind:
            return Outcome() if self.holds(nexus) and self.kind == kind else CONFLICT
        self.holder, self.kind = nexus, kind
        return Outcome(has_changed=True)

    def release(self, nexus: str, kind: int) -> Outcome:
        if not self.holds(nexus):
            return Outcome()
        if self.kind != kind:
            return Outcome(sense.INVALID_RELEASE)
        tells = self.kind not in (WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS)
        self.holder, self.kind = "", 0
        others = tuple((other, sense.RESERVATIONS_RELEASED) for other in self.registrations if other != nexus and tells)
        return Outcome(attentions=others, has_changed=True)

    def clear(self, nexus: str) -> Outcome:
        others = tuple((other, sense.RESERVATIONS_PREEMPTED) for other in self.registrations if other != nexus)
        self.registrations, self.holder, self.kind = {}, "", 0
        self.generation = self.next_generation()
        return Outcome(attentions=others, has_changed=True)

    def preempt(self, nexus: str, kind: int, service_key: int, aborts: bool) -> Outcome:
        """SPC-4 section 5.13.11.4: take registrations with a key away, and the reservation if it is theirs."""
        if service_key == 0 and not self.is_for_all:
            return Outcome(sense.INVALID_PARAMETER)
        takes = bool(self.kind) and (service_key == 0 if self.is_for_all else self.registrations[self.holder] == service_key)
        if takes and self.is_for_all:
            gone = [other for other in self.registrations if other != nexus]
        else:
            gone = [other for other, key in self.registrations.items() if key == service_key and (other != nexus or not takes)]
            if not gone and not takes:
                return CONFLICT
        before = self.kind
        for other in gone:
            del self.registrations[other]
        attentions = [(other, sense.REGISTRATIONS_PREEMPTED) for other in gone if other != nexus]
        if takes:
            self.holder, self.kind = nexus, kind
            if kind != before:
                attentions += [(other, sense.RESERVATIONS_RELEASED) for other in self.registrations if other != nexus]
        elif self.is_for_all and not self.registrations:
            self.holder, self.kind = "", 0
        self.generation = self.next_generation()
        return Outcome(attentions=tuple(attentions), aborted=tuple(gone) if aborts else (), has_changed=True)

    def move(self, nexus: str, scope_and_type: int, data: bytes, can_keep: bool) -> Outcome:
        """REGISTER AND MOVE: the reservation goes to another nexus, which is registered with the service action key."""
        if len(data) < PARAMETER_BYTES:
            return Outcome(sense.PARAMETER_LENGTH)
        key, service_key = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")
        unregisters, keeps = bool(data[17] & 0x02), bool(data[17] & 0x01)
        port, length = int.from_bytes(data[18:20], "big"), int.from_bytes(data[20:24], "big")
        if length != len(data) - PARAMETER_BYTES:
            return Outcome(sense.PARAMETER_LENGTH)
        if self.reserved_6 or self.registrations.get(nexus) != key or not self.kind:
            return CONFLICT
        if self.is_for_all or not self.holds(nexus):
            return CONFLICT
        other = nexus_of(data[PARAMETER_BYTES:])
        if service_key == 0 or other is None or other == nexus or port != 1 or (keeps and not can_keep):
            return Outcome(sense.INVALID_PARAMETER)
        if scope_and_type >> 4 or scope_and_type & 0x0F != self.kind:
            return Outcome(sense.INVALID_FIELD)
        if other not in self.registrations and len(self.registrations) >= REGISTRATIONS_MAX:
            return Outcome(sense.NO_REGISTRATION_ROOM)
        self.registrations[other], self.holder, self.keeps = service_key, other, keeps
        if unregisters:
            del self.registrations[nexus]
        self.generation = self.next_generation()
        return Outcome(has_changed=True)

    # What is kept.

    def image(self) -> bytes:
        """All that survives a loss of power, in bytes that `restored` trusts."""
        text = json.dumps({
            "generation": self.generation, "registrations": self.registrations, "holder": self.holder, "kind": self.kind,
            "keeps": self.keeps,
        }).encode()  # fmt: skip
        return zlib.crc32(text).to_bytes(4, "big") + len(text).to_bytes(4, "big") + text


def restored(image: bytes) -> Reservations | None:
    """The state that `image` was made of; None for bytes that are none."""
    length = int.from_bytes(image[4:8], "big")
    text = image[8 : 8 + length]
    if len(image) < 8 or not 0 < length <= IMAGE_BYTES_MAX or len(text) != length:
        return None
    if zlib.crc32(text) != int.from_bytes(image[:4], "big"):
        return None
    fields = json.loads(text)
    return Reservations(
        fields["generation"], {str(nexus): int(key) for nexus, key in fields["registrations"].items()}, fields["holder"],
        fields["kind"], fields["keeps"],
    )  # fmt: skip


def nexus_name(initiator: str, isid: bytes) -> str:
    """How an initiator port is called: SPC-4 section 7.6.4.6."""
    return f"{initiator},i,0x{isid.hex()}"


def transport_id_of(nexus: str) -> bytes:
    """The TransportID of an iSCSI initiator port, format 01b: name and ISID."""
    name = nexus.encode() + b"\0"
    name += bytes(-len(name) % 4)
    if len(name) < 20:
        name += bytes(20 - len(name))
    return bytes([0x45, 0]) + len(name).to_bytes(2, "big") + name


def nexus_of(transport: bytes) -> str | None:
    """The initiator port that a TransportID names; None for another protocol's, or a name without ISID."""
    if len(transport) < 24 or transport[0] != 0x45:
        return None
    length = int.from_bytes(transport[2:4], "big")
    if length != len(transport) - 4:
        return None
    name, zero, _ = transport[4:].partition(b"\0")
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return None
    head, separator, isid = text.rpartition(",i,0x")
    if not zero or not separator or not head or len(isid) != 12 or not all(digit in "0123456789abcdefABCDEF" for digit in isid):
        return None
    return f"{head},i,0x{isid.lower()}"
