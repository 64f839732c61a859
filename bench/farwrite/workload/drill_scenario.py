"""A drill's scenario: what is done to which site or link, and when. Shipped ones are in workloads/drills.

Three sites: near and far hold a replica each, near's leads when the load begins; third holds the witness or a third replica, and
the client that writes. Times count from the first acknowledged write. An event with `until` happens at an instant drawn between
`at` and `until`, anew for each trial.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from ..base.errors import UnfitError, UsageError, nearest
from ..base.units import NS_PER_S, format_time
from .shipped import names_in, text_of
from .tables import Struct
from .toml_reader import Reader, tables_of

SITES = ("near", "far", "third")
PolicyName = Literal["block", "consent", "suspend-replication"]
DoorName = Literal["", "nbd", "iscsi"]
ISCSI_DEPTH_MAX = 64  # Commands that a session of the iSCSI door may have under way.
END_NS_MAX = 600 * NS_PER_S

# What each action needs: a site, or a link of two sites; and whether it is a fault or ends one.
ON_SITES = {
    "kill": "fault", "lose": "fault", "stop": "fault", "restart": "recovery", "continue": "recovery", "switch-over": "planned",
    "power-off": "fault", "disk-full": "fault", "disk-refuse": "fault", "disk-stall": "fault", "disk-heal": "recovery",
}  # fmt: skip
ON_DISKS = ("disk-full", "disk-refuse", "disk-stall")
ON_LINKS = {"cut": "fault", "blackhole": "fault", "slow": "fault", "lossy": "fault", "heal": "recovery"}
CLOCK_AHEAD_NS_MAX = 400 * 86_400 * NS_PER_S
SERVERS_MAX, MILES_MAX, RATE_BITS_PER_S_MIN = 256, 15_000, 1_000_000
LOSS_MAX, EXTRA_RTT_NS_MAX = 0.5, NS_PER_S
KINDS = ON_SITES | ON_LINKS
NEED_PACKETS = (*ON_LINKS, "lose")  # A lost site is cut off as well.


class Event(Struct, frozen=True):
    """[[event]]: one thing that is done."""

    action: str
    at_ns: int
    until_ns: int | None = None  # drawn between `at` and this; null: exactly at `at`
    site: str = ""
    link: tuple[str, ...] = ()  # two sites; of a blackhole the first is the one that is not heard any more
    extra_rtt_ns: int | None = None  # of "slow": on top of the distance's round trip, half in each direction
    loss_ratio: float | None = None  # of "lossy": of packets, in each direction
    clock_ahead_ns: int | None = None  # of "restart": its CLOCK_MONOTONIC is so far ahead of the other sites' from then on

    @property
    def kind(self) -> str:
        """ "fault", "recovery" or "planned"."""
        return KINDS[self.action]

    @property
    def text(self) -> str:
        """ "kill near", "blackhole near to far"."""
        place = self.site or (" to " if self.action == "blackhole" else " - ").join(self.link)
        much = format_time(self.extra_rtt_ns) if self.extra_rtt_ns else f"{self.loss_ratio:.2g}" if self.loss_ratio else ""
        ahead = f", its clock {format_time(self.clock_ahead_ns)} ahead" if self.clock_ahead_ns else ""
        return f"{self.action} {place}{f' by {much}' if much else ''}{ahead}"


class Scenario(Struct, frozen=True):
    """The whole file."""

    title: str
    end_ns: int  # the load goes on at least until then
    event: tuple[Event, ...]
    about: str = ""
    servers: int = 0  # virtual servers that share the load, each with blocks of its own; 0: they are not told apart
    miles: float | None = None  # between near and far, where none are asked for
    rate_bits_per_s: int | None = None  # of every link
    busy: bool = False  # beside the replicas a process spins on each processor, as long as the trial lasts

    @property
    def first_fault(self) -> int:
        """The index of the event that a trial counts by: the first fault, or what is planned where there is none."""
        return next((index for index, event in enumerate(self.event) if event.kind == "fault"), 0)


def shipped() -> list[str]:
    """The names of the scenarios that come with farwrite."""
    return names_in("drills")


def load(name: str) -> Scenario:
    """The scenario of this name or path. UsageError with the line of what is wrong in it."""
    return parse(*text_of(name, "drills", "drill"))


def parse(text: str, source: str) -> Scenario:
    """The scenario in a text of TOML."""
    made, reader = tables_of(text, source, Scenario, f"read the drill in {source}")
    check(made, reader)
    return made


def check(scenario: Scenario, reader: Reader) -> None:
    """UsageError for what cannot be done, with its line."""

    def refuse(index: int, key: str, sentence: str) -> None:
        raise UsageError(f"{reader.where(('event', index, key))}: {sentence}")

    if not 0 < scenario.end_ns <= END_NS_MAX:
        raise UsageError(f"{reader.where(('end',))}: a drill ends after 0 s, and within {format_time(END_NS_MAX)}.")
    if not 0 <= scenario.servers <= SERVERS_MAX:
        raise UsageError(f"{reader.where(('servers',))}: 0 to {SERVERS_MAX} servers can be told apart.")
    if scenario.miles is not None and not 0 <= scenario.miles <= MILES_MAX:
        raise UsageError(f"{reader.where(('miles',))}: it must lie between 0 and {MILES_MAX:,}.")
    if scenario.rate_bits_per_s is not None and scenario.rate_bits_per_s < RATE_BITS_PER_S_MIN:
        raise UsageError(f"{reader.where(('rate',))}: a drill's links carry 1 Mbit/s at least.")
    if not scenario.event:
        raise UsageError(f"{reader.where(('event',))}: a drill has at least one [[event]].")
    down: set[str] = set()  # sites whose process is killed, lost or stopped, as "killed near"
    cut: set[frozenset[str]] = set()
    before_ns = 0
    for index, event in enumerate(scenario.event):
        if event.action not in KINDS:
            refuse(index, "action", f'there is no action "{event.action}"{nearest(event.action, KINDS)}.')
        last_ns = event.at_ns if event.until_ns is None else event.until_ns
        if event.at_ns < before_ns:
            refuse(index, "at", "events are listed in the order in which they happen, and this one may come before the last.")
        if last_ns < event.at_ns:
            refuse(index, "until", f"an event at {format_time(event.at_ns)} or later is not over by {format_time(last_ns)}.")
        if last_ns >= scenario.end_ns:
            refuse(index, "at", f"this lies behind the end of the drill, {format_time(scenario.end_ns)}.")
        before_ns = last_ns
        for key, name, action, most in (
            ("extra_rtt", "extra_rtt_ns", "slow", EXTRA_RTT_NS_MAX), ("loss", "loss_ratio", "lossy", LOSS_MAX),
        ):  # fmt: skip
            value = getattr(event, name)
            if (value is None) == (event.action == action):
                refuse(index, "action", f'"{key}" goes with "{action}", and only with it.')
            if value is not None and not 0 < value <= most:
                refuse(index, key, f"it must lie above 0, and not above {format_time(most) if most > 1 else most}.")
        if event.clock_ahead_ns is not None:
            if event.action != "restart":
                refuse(index, "action", '"clock_ahead" goes with "restart", and only with it: no clock jumps under a process.')
            if not 0 < event.clock_ahead_ns <= CLOCK_AHEAD_NS_MAX:
                refuse(index, "clock_ahead", f"it must lie above 0, and not above {format_time(CLOCK_AHEAD_NS_MAX)}.")
        if event.action in ON_SITES:
            if event.link or event.site not in SITES:
                refuse(index, "site", f'"{event.action}" is of one site, and "{event.site}" is none{nearest(event.site, SITES)}.')
            follow_site(event, down, lambda why, index=index: refuse(index, "action", why))
        else:
            if event.site or len(event.link) != 2 or len(set(event.link)) != 2:
                refuse(index, "link", f'"{event.action}" is of a link between two sites, such as ["near", "far"].')
            for name in event.link:
                if name not in SITES:
                    refuse(index, "link", f'there is no site "{name}"{nearest(name, SITES)}.')
            pair = frozenset(event.link)
            if event.action == "heal" and pair not in cut:
                refuse(index, "action", f"the link {' - '.join(event.link)} was not cut, slow or lossy before.")
            (cut.discard if event.action == "heal" else cut.add)(pair)


def follow_site(event: Event, down: set[str], refuse: Any) -> None:
    """Note what an event does to a site; refused when its process is not in the state for it."""
    site = event.site
    killed, stopped, lost, ailing, stalled = (f"{word} {site}" for word in ("killed", "stopped", "lost", "ailing", "stalled"))
    if lost in down or (killed in down and event.action not in ("restart", "lose")):
        refuse(f"the process of {site} is gone by then.")
    if event.action == "restart":
        if not {killed, ailing, stalled} & down:
            refuse(f"{site} was not killed before, nor its disk lost.")
        down -= {killed, ailing, stalled, stopped}
    elif ailing in down and event.action not in ("kill", "lose", "power-off"):
        refuse(f"{site} has ended, or is about to, for want of its disk: start it again first.")
    elif event.action == "disk-heal":
        if stalled not in down:
            refuse(f"the disk of {site} was not stalled before.")
        down.discard(stalled)
    elif event.action in ON_DISKS:
        down.add(stalled if event.action == "disk-stall" else ailing)
    elif event.action == "continue":
        if stopped not in down:
            refuse(f"{site} was not stopped before.")
        down.discard(stopped)
    elif event.action == "stop":
        down.add(stopped)
    elif event.action in ("kill", "lose", "power-off"):
        down -= {stopped, ailing, stalled}
        down.add(lost if event.action == "lose" else killed)
    elif site == "third":
        refuse("the third site holds no second copy to switch over to.")


class Setup(Struct, frozen=True, omit_defaults=True):
    """What a scenario is played on."""

    miles: float
    protocol: str
    policy: PolicyName
    replicas: int  # 2, or 3 with the third at the third site
    has_witness: bool
    quorum: int  # replicas that must be durable under protocol quorum
    offered_per_s: float  # 0: a closed loop
    queue_depth: int
    size_bytes: int
    block_count: int
    bound_ns: int  # a write acknowledged later after its intended instant is late
    peer_timeout_ns: int
    trials: int
    seed: int
    door: DoorName = ""  # through which the client writes; "": at the nodes' desks


def check_voters(policy: str, protocol: str, replicas: int, has_witness: bool) -> None:
    """UsageError where policy, protocol and voters do not go together."""
    if policy == "consent" and replicas == 2 and not has_witness:
        raise UsageError(
            "--policy consent goes on without a lost replica by a majority's leave, and two replicas without a witness have none "
            "left: add the witness (leave --no-witness away), or choose --policy block or suspend-replication."
        )
    if has_witness and replicas == 3:
        raise UsageError("--replicas 3 has its third vote at the third site: there is no witness beside it.")
    if protocol == "quorum" and replicas == 2:
        raise UsageError("--protocol quorum completes a write once two of three replicas have it: add --replicas 3.")


def check_setup(scenario: Scenario, setup: Setup) -> None:
    """UsageError where the scenario, the policy and the replicas do not go together."""
    check_voters(setup.policy, setup.protocol, setup.replicas, setup.has_witness)
    if setup.door == "iscsi" and setup.queue_depth > ISCSI_DEPTH_MAX:
        raise UsageError(
            f"--depth {setup.queue_depth}: a session of the iSCSI door has {ISCSI_DEPTH_MAX} commands under way at most. Choose "
            f"--depth {ISCSI_DEPTH_MAX} or less, or --door nbd."
        )
    for event in scenario.event:
        if event.action in ON_DISKS and event.site not in SITES[: setup.replicas]:
            raise UsageError(f"{event.text}: the third site's voter has no volume. Name near or far, or add --replicas 3.")
        if event.clock_ahead_ns and event.site not in SITES[: setup.replicas]:
            raise UsageError(f"{event.text}: only a replica's clock can be ahead. Name near or far, or add --replicas 3.")
    if not setup.has_witness and setup.replicas == 2:
        for event in scenario.event:
            if event.site == "third":
                raise UsageError(f'"{event.text}": without a witness nothing votes at the third site. Leave --no-witness away.')


def check_without_links(scenario: Scenario) -> None:
    """UnfitError where processes on loopback, which no link joins, cannot show what a scenario asks for."""
    for event in scenario.event:
        if event.action in NEED_PACKETS:
            what = "cuts a site off" if event.action == "lose" else "is of a link"
            raise UnfitError(
                f'"{event.text}" {what}, and without privileges the sites are processes on loopback, which no link joins. Run as '
                "root, or where user namespaces are allowed; or choose a drill that kills or stalls processes, such as "
                "primary-killed, primary-stalled, disk-stalls or switch-over."
            )
        if event.clock_ahead_ns:
            raise UnfitError(f"\"{event.text}\" takes a time namespace, so root, or a system that allows user namespaces.")
    if scenario.rate_bits_per_s is not None:
        raise UnfitError("The scenario's \"rate\" is of its links, and without privileges the sites are processes on loopback.")


def names_of(setup: Setup) -> Collection[str]:
    """The sites that hold a replica."""
    return SITES[: setup.replicas]
