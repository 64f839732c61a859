"""What `farwrite lab --measure` observed: how long each run of a command took, at 0 miles and at a distance, round by round.

Recorded first and judged later, by `analysis/command.py`, from this alone.
"""

from __future__ import annotations

import msgspec

from .keep_awake import KeptAwake
from .reasons import Reason


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What it is made of."""


class Turn(Struct, frozen=True):
    """The runs of one round at one of the two distances, in the order they were made."""

    rtt_ns: list[float]  # round trips that the link delivered before them
    run_ns: list[int]  # from the start of the program to its end


class Pair(Struct, frozen=True):
    """One round: as many runs at 0 miles as at the distance, taking turns with which comes first."""

    near_first: bool
    at_0: Turn
    far: Turn


class Repeated(Struct, frozen=True):
    """Everything."""

    farwrite: str
    started_utc: str
    command: list[str]
    miles: float
    asked_rtt_ns: int
    is_ping: bool  # the round trip asked for is an echo's, this host's own part in it included
    route_factor: float
    asked_besides: str  # of the link, in words
    link: str
    link_reason: str
    keep_awake: KeptAwake
    keep_awake_reason: str
    warmups: int  # runs at each distance before the first round, which are in no figure
    planned_runs: int  # at each distance
    rounds: list[Pair]
    void: list[Reason]  # why a round was left out, one for each
    interrupted: bool = False
