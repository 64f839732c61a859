"""What a volume's group is asked about its replicas, at the control socket of whoever leads. It is asked once: who looks after a
pool has other volumes to look after, and asks again."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...base.errors import UnfitError
from ...engine.control import Address
from ..serve import control
from .steps import NotNowError

ANSWER_S = 5.0  # A hand-over waits for two peer timeouts at most.


class Listed(NamedTuple):
    """A replica as its leader has it."""

    is_member: bool  # it must hold every write
    is_live: bool  # it keeps up


def replicas(sockets: Path) -> Mapping[str, Listed]:
    """All replicas of the group, by name, the leader too."""
    answer = ask(sockets, control.Replicas())
    return {one.name: Listed(one.is_member, one.state in ("leads", "live")) for one in answer.replicas}


def add(sockets: Path, name: str, address: Address) -> None:
    """Have the group bring another replica up to date."""
    ask(sockets, control.AddReplica(name, address.host, address.port, address.vote_port))


def remove(sockets: Path, name: str) -> None:
    """Have the group go on without a replica."""
    ask(sockets, control.RemoveReplica(name))


def hand_over(sockets: Path, to: str) -> None:
    """Have another replica lead."""
    ask(sockets, control.HandOver(to))


def ask(sockets: Path, request: control.Request) -> control.Answer:
    """What whoever leads answers. NotNowError when nobody does, or not in time; what it refuses is raised."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(ANSWER_S)
            connection.connect(str(sockets / control.CONTROL))
            answer = control.answer_to(connection, request, control.ANSWER, control.ANSWER_BYTES_MAX, ANSWER_S)
        except (OSError, UnfitError) as refusal:
            raise NotNowError(f"whoever leads does not answer: {refusal}") from refusal
    if not answer.refusal:
        return answer
    if not answer.leads:
        raise NotNowError(answer.refusal)
    raise control.raised_there(answer.refusal, answer.exit_code)
