"""What an experiment and the worker of an arm say to each other: a JSON document a line, each answered by one line.

The two ends may be different revisions of farwrite, so this is a format like that of reports: what is added later has a
default, and VERSION counts what an older end would misread. A profile travels without the values that are defaults: an older
revision hears of a key that it does not know yet only when it matters.
"""

from __future__ import annotations

from typing import IO, Any

import msgspec

from ...base import framing
from ...base.errors import UsageError
from ...recording import Cell, FlushFloors, LabFacts, Round
from ...workload.tables import Profile, told

VERSION = 1
LINE_BYTES_MAX = 64 << 20  # A round of an hour, with its 3 600 slices, has 2 MB.


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lines are made of."""


class Network(Struct, frozen=True):
    """The places of the lab, as descriptors that the worker inherits, and what joins them."""

    near_fd: int
    far_fd: int
    user_fd: int | None  # of the user namespace that owns both; null when the lab was opened by root
    link: str
    link_reason: str
    other_fds: list[int] = []  # of the further far sites
    addresses: list[str] = []  # of all sites where there are no namespaces; the descriptors above are then -1
    door_fds: list[int] = []  # of all far sites: where their relays are asked for a passage


class Task(Struct, frozen=True):
    """The first line: what the arm measures and where."""

    version: int
    profile: dict[str, Any]
    profile_name: str
    seed: int
    directory: str
    network: Network


class Measure(Struct, frozen=True):
    """A round to be measured now."""

    cell: str
    index: int
    attempt: int


class Request(Struct, frozen=True):
    """Every further line: one of these."""

    floors: int | None = None  # bare flushes, to be stored under this round index
    measure: Measure | None = None


class Joined(Struct, frozen=True):
    """The answer to the task: who the worker is and what it understood."""

    version: int
    farwrite: str
    package: str  # the directory of the code that runs
    profile: dict[str, Any]  # every value, defaults as well
    host: dict[str, Any]
    lab: LabFacts
    cells: list[Cell]


class Refusal(Struct, frozen=True):
    """The answer to anything that cannot be; the worker ends after it."""

    sentence: str
    exit_code: int


class Answer(Struct, frozen=True):
    """What a worker answers: one of these."""

    joined: Joined | None = None
    floors: list[FlushFloors] | None = None
    round: Round | None = None
    refusal: Refusal | None = None


class Head(Struct, frozen=True):
    """Enough of a task to know whether the rest can be understood."""

    version: int


def task_profile(profile: Profile) -> dict[str, Any]:
    """A profile as an arm is told of it."""
    return without_ours(told(profile))


def without_ours(profile: dict[str, Any]) -> dict[str, Any]:
    """A profile's tables without what is no arm's affair: the experiment keeps the machine awake, for all of them alike."""
    lab = {key: value for key, value in profile.get("lab", {}).items() if key != "keep_awake"}
    return {key: value for key, value in profile.items() if key != "lab"} | ({"lab": lab} if lab else {})


def say(stream: IO[bytes], message: Struct) -> None:
    """One line."""
    framing.send(stream, framing.line(msgspec.json.encode(message)))


def lines_of(stream: IO[bytes]) -> framing.Reader:
    """The lines that the other end says."""
    return framing.Reader(stream, framing.Lines(LINE_BYTES_MAX))


def understood(profile: dict[str, Any]) -> Profile:
    """The profile that was told; UsageError when it has what this farwrite does not know."""
    try:
        made = msgspec.convert(profile, Profile)
    except msgspec.ValidationError as refusal:
        raise UsageError(f"that farwrite does not know everything the profile asks for: {refusal}.") from refusal
    if passed_over := unread(profile, msgspec.to_builtins(made)):
        raise UsageError(f"that farwrite does not know everything the profile asks for: it has no {passed_over}.")
    return made


def unread(sent: Any, made: Any, path: str = "") -> str:
    """The first key that was sent and is not in what was made of it: a stored profile passes over those, an arm must not."""
    if isinstance(sent, dict) and isinstance(made, dict):
        pairs = [(f"{path}.{key}".lstrip("."), value, made.get(key)) for key, value in sent.items()]
        missing = next((f"{path}.{key}".lstrip(".") for key in sent if key not in made), "")
    elif isinstance(sent, list) and isinstance(made, list):
        pairs = [(f"{path}[{place}]", one, other) for place, (one, other) in enumerate(zip(sent, made, strict=False))]
        missing = ""
    else:
        return ""
    return missing or next((found for where, one, other in pairs if (found := unread(one, other, where))), "")


def misread(ours: Any, theirs: Any, place: str = "") -> str | None:
    """Where two readings of one profile differ, as `run.round_ns`; None when both mean the same by every key both know."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() & theirs.keys():
            found = misread(ours[key], theirs[key], f"{place}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return next(filter(None, (misread(*pair, place) for pair in zip(ours, theirs, strict=True))), None)
    return None if ours == theirs else place
