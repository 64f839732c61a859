"""Keep-awake: what keeps this machine's processors from sleeping while a lab is open, and how "auto" chooses it.

A processor that sleeps between two packets wakes late, a virtual one by 50 to 200 us, and the wake-up is taken for distance.

`qos`      /dev/cpu_dma_latency held open with 0 in it: idle processors poll in the kernel's idle loop, which every task goes
           before. It ends when the descriptor is closed, by whatever closes it. Documentation/power/pm_qos_interface.rst. It
           needs a cpuidle driver: without one the idle loop does not ask PM QoS.
`spinner`  lab/spinner.py: a process of idle priority that keeps one processor busy.

`decide` is asked by open_lab and by `farwrite doctor`, so that both give one answer.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import FarwriteError, UnfitError
from ..base.host.facts import cpu_flags, text_of
from ..base.keep_awake import KeepAwake, KeptAwake
from .keep_awake_trial import Trial, tried
from .spinner import spinning

NO_LATENCY = struct.pack("=i", 0)  # us, as the device takes it: an int32 in the machine's byte order.
HALT_POLL_NS = 200_000  # The kernel's own default of guest_halt_poll_ns; Documentation/virt/guest-halt-polling.rst.
AS_USUAL = "leave lab.keep_awake to auto"
HELD: set[int] = set()  # Descriptors of the device; a forked process closes them, and cannot hold on to what we let go.


@dataclass(frozen=True)
class Machine:
    """Where the system says, and lets us say, how its processors sleep; tests name other files."""

    device: Path = Path("/dev/cpu_dma_latency")
    driver: Path = Path("/sys/devices/system/cpu/cpuidle/current_driver")
    halt_poll_ns: Path = Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns")
    is_guest: Callable[[], bool] = lambda: "hypervisor" in cpu_flags()
    try_spinner: Callable[[Path | None], Trial] = lambda directory: tried(spinning, directory)


HERE = Machine()


@dataclass(frozen=True)
class Decision:
    """What keeps the processors awake, why, and what would do it better."""

    chosen: KeptAwake = "none"
    reason: str = ""
    # What makes PM QoS, or polling in the guest, possible; empty where nothing need be done; None: an older run kept none.
    mend: str | None = ""
    trial: Trial | None = None  # of the spinner, where it was needed to decide


@contextmanager
def awake(
    wanted: KeepAwake = "auto", directory: Path | None = None, machine: Machine | None = None
) -> Iterator[Decision]:
    """Decide, and keep awake exactly as long as this block. UnfitError when what was asked for by name cannot be."""
    machine = machine or HERE
    decision = decide(wanted, directory, machine)
    with contextlib.ExitStack() as stack:
        if decision.chosen == "qos":
            stack.enter_context(held(machine.device))
        elif decision.chosen == "spinner":
            stack.enter_context(spinning())
        yield decision


def decide(wanted: KeepAwake = "auto", directory: Path | None = None, machine: Machine | None = None) -> Decision:
    """PM QoS where it can be had and has an effect, else the spinner where a trial says that it helps, else nothing.

    `directory` is where writes will be flushed: None where nothing is.
    """
    machine = machine or HERE
    if wanted in ("none", "spinner"):
        return Decision(wanted, "as asked", AS_USUAL)
    obstacle, mend = obstacle_of(machine)
    if not obstacle:
        return Decision("qos", "as asked" if wanted == "qos" else f"{machine.device} is held at 0")
    if wanted == "qos":
        raise UnfitError(
            f"lab.keep_awake is qos, but {obstacle}. {f'Mend it: {mend}. ' if mend else ''}"
            "Or leave the choice to auto; a run that goes on must have what it began with."
        )
    try:
        trial = machine.try_spinner(directory)
    except (FarwriteError, OSError) as refusal:
        return Decision("none", f"{obstacle}; a spinner could not be tried: {str(refusal).rstrip('.')}", mend)
    return Decision("spinner" if trial.helps else "none", f"{obstacle}; {trial.sentence}", mend, trial)


def obstacle_of(machine: Machine) -> tuple[str, str]:
    """(why PM QoS cannot keep this machine awake, the command that mends it); the first is empty where it can."""
    driver = text_of(str(machine.driver))
    is_guest = machine.is_guest()
    if driver in (None, "none"):
        obstacle = f"{machine.device} has no effect, because this kernel runs without a cpuidle driver"
        return obstacle, f"modprobe cpuidle_haltpoll force=Y && {halt_poll(machine)}" if is_guest else ""
    refusal = refusal_of(machine.device)
    if refusal is None:
        return "", ""
    mend = "docker run --device /dev/cpu_dma_latency"
    if refusal == errno.EACCES and os.geteuid() != 0:
        mend = udev_rule(machine.device.name)
    if is_guest and text_of(str(machine.halt_poll_ns)) == "0":
        mend += f"; or on this guest {halt_poll(machine)}"
    return f"open {machine.device}: {os.strerror(refusal)}", mend


def refusal_of(device: Path) -> int | None:
    """The errno with which the device refuses to be opened; None when it can be. Permission bits do not tell in a container."""
    try:
        os.close(os.open(device, os.O_WRONLY))
    except OSError as refusal:
        return refusal.errno or errno.EIO
    return None


def halt_poll(machine: Machine) -> str:
    """The command that makes a guest's idle processors poll for a while before they halt."""
    return f"echo {HALT_POLL_NS} > {machine.halt_poll_ns}"


def udev_rule(device: str) -> str:
    """The command that lets our own group open the device, from now on; udev(7). To be run as root."""
    try:
        group = grp.getgrgid(os.getgid()).gr_name
    except KeyError:  # A number without a name; udev takes it as well.
        group = str(os.getgid())
    rule = f'KERNEL=="{device}", GROUP="{group}", MODE="0660"'
    return (
        f"echo '{rule}' | sudo tee /etc/udev/rules.d/70-farwrite.rules && sudo udevadm control --reload && "
        f"sudo udevadm trigger --name-match={device}"
    )


@contextmanager
def held(device: Path) -> Iterator[int]:
    """The device with 0 in it, open exactly as long as this block, or as long as we live."""
    try:
        descriptor = os.open(device, os.O_WRONLY)
    except OSError as refusal:
        raise UnfitError(f"open {device}: {refusal.strerror}. Choose another lab.keep_awake.") from refusal
    HELD.add(descriptor)
    try:
        try:
            os.write(descriptor, NO_LATENCY)
        except OSError as refusal:
            raise UnfitError(f"write 0 to {device}: {refusal.strerror}. Choose another lab.keep_awake.") from refusal
        yield descriptor
    finally:
        HELD.discard(descriptor)
        os.close(descriptor)


def let_go() -> None:
    """In a forked process: close what only its parent is to hold."""
    while HELD:
        with contextlib.suppress(OSError):
            os.close(HELD.pop())


os.register_at_fork(after_in_child=let_go)
