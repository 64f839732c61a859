"""What keeps the processors awake: in what order "auto" chooses, and that the device is held exactly as long as the lab.

A FIFO stands in for /dev/cpu_dma_latency: its reader sees what is written, and the end once nobody holds it open any more.
"""

import contextlib
import os
import select
import signal
import struct
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from small_lab import lab_or_skip, small

from farwrite.base.errors import UnfitError
from farwrite.lab import keep_awake as awake_module
from farwrite.lab.keep_awake import HELD, HERE, Machine, awake, decide, held
from farwrite.lab.keep_awake_trial import Times, Trial, tried
from farwrite.lab.process import process
from farwrite.lab.spinner import spinning

PATIENCE_S = 60.0


class Device:
    """A FIFO that stands in for the device, and what was done to it."""

    def __init__(self, path):
        os.mkfifo(path)
        self.path = path
        self.reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def written(self):
        """What was written since the last look; None when nothing is there, but somebody may still write."""
        try:
            return os.read(self.reading, 64)
        except BlockingIOError:
            return None

    def is_held(self):
        """Whether anybody has it open."""
        watch = select.poll()
        watch.register(self.reading, select.POLLIN)
        return not any(event & select.POLLHUP for _, event in watch.poll(0))


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path / "cpu_dma_latency")
    try:
        yield made
    finally:
        os.close(made.reading)


@pytest.fixture
def machine(tmp_path, device):
    """A guest with a cpuidle driver and a device that everybody may open, on which a spinner would help."""
    driver, halt_poll_ns = tmp_path / "current_driver", tmp_path / "guest_halt_poll_ns"
    driver.write_text("haltpoll\n")
    halt_poll_ns.write_text("0\n")
    return Machine(device.path, driver, halt_poll_ns, lambda: True, lambda directory: trial())


def times(before, after):
    return Times([before] * 20, [after] * 20)


def trial(echo=(200_000, 20_000), late=(60_000, 60_000), flush=(150_000, 150_000)):
    return Trial(times(*echo), times(*late), times(*flush))


def wait_for(true):
    until_s = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < until_s:
        time.sleep(0.01)
    return true()


# How long it is held.


def test_the_device_has_an_int32_of_zero_in_it_and_is_held_exactly_as_long_as_the_block(device, machine):
    with awake("auto", None, machine) as decision:
        assert decision.chosen == "qos"
        assert device.is_held()
        assert device.written() == struct.pack("=i", 0)
    assert not device.is_held()
    assert device.written() == b"" and not HELD


def test_the_device_is_let_go_when_the_block_fails(device, machine):
    with contextlib.suppress(KeyboardInterrupt), awake("qos", None, machine):
        raise KeyboardInterrupt
    assert not device.is_held()


@pytest.mark.lab
def test_a_lab_holds_the_device_and_nothing_that_it_forks_does(device, machine, monkeypatch):
    monkeypatch.setattr(awake_module, "HERE", machine)
    with lab_or_skip(small()) as lab:
        assert lab.awake.chosen == "qos" and str(device.path) in lab.awake.reason
        assert device.is_held() and device.written() == bytes(4)
        assert writes_to(os.getpid(), device.path)
        for site in (lab.near, lab.far):
            assert not writes_to(site.process.pid, device.path)
    assert not device.is_held()


def writes_to(pid, path):
    """Whether a process has this open for writing."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            flags = int(Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().split("flags:")[1].split()[0], 8)
            if entry.readlink() == path and flags & os.O_ACCMODE == os.O_WRONLY:
                return True
    return False


def test_a_killed_holder_lets_go_though_what_it_forked_lives_on(device, tmp_path):
    with process("holder") as holder:
        holder.start(hold_and_fork, str(device.path), str(tmp_path / "heir"))
        assert wait_for(lambda: (tmp_path / "heir").exists() and (tmp_path / "heir").read_text().endswith("\n"))
        heir = int((tmp_path / "heir").read_text())
        try:
            assert device.is_held()
            os.kill(holder.pid, signal.SIGKILL)
            assert wait_for(lambda: not device.is_held())
            os.kill(heir, 0)  # It lives.
        finally:
            os.kill(heir, signal.SIGKILL)


def hold_and_fork(path, place):
    """In a process: hold the device, fork something that outlives us, and stay."""
    with held(Path(path)):
        heir = os.fork()
        if heir == 0:
            time.sleep(600)
            os._exit(0)
        Path(place).write_text(f"{heir}\n")
        time.sleep(600)


@pytest.mark.skipif(not os.access(HERE.device, os.W_OK), reason="this machine's device is not ours to open")
def test_this_machine_takes_it_and_has_its_own_value_back_afterwards():
    def target():
        with HERE.device.open(
            "rb", buffering=0
        ) as reading:  # Whoever opens it asks for nothing until something is written.
            return struct.unpack("=i", reading.read(4))[0]

    before = target()
    with held(HERE.device):
        assert target() == 0
    assert target() == before


# What is chosen.


def test_auto_is_pm_qos_then_the_spinner_then_nothing(machine):
    assert decide("auto", None, machine).chosen == "qos"
    machine.device.unlink()
    assert decide("auto", None, machine).chosen == "spinner"
    harmful = replace(machine, try_spinner=lambda directory: trial(flush=(150_000, 900_000)))
    assert decide("auto", None, harmful).chosen == "none"


@pytest.mark.parametrize(
    ("made", "helps", "words"),
    [
        (trial(), True, "helps (echo 0.200 ms -> 20.0 us)"),
        (trial(echo=(200_000, 180_000)), False, "would not help (echo 0.200 ms -> 0.180 ms)"),
        (trial(flush=(150_000, 900_000)), False, "would harm (a flush 0.150 ms -> 0.900 ms)"),
        (trial(late=(60_000, 140_000)), False, "would harm (a timer's lateness 60.0 us -> 0.140 ms)"),
        (Trial(times(200_000, 20_000), times(1, 1)), True, "helps"),
        (
            Trial(times(200_000, 20_000), times(1, 1), Times([150_000] * 20, [150_000] * 15 + [4_000_000] * 5)),
            False,
            "would harm (a flush 0.150 ms -> 4.00 ms at p90)",
        ),
    ],
)
def test_a_spinner_helps_when_an_echo_is_shorter_and_neither_flush_nor_timer_longer(made, helps, words):
    assert made.helps == helps
    assert words in made.sentence


def test_what_was_shorter_in_some_blocks_only_has_not_helped():
    """Something else ran during the blocks without it: 0.108 ms -> 53.8 us, on a machine where nothing can help."""
    echo = Times([40_000] * 5 + [180_000] * 15, [50_000] * 20)
    assert echo.p50 == (180_000, 50_000) and not echo.shorter
    assert times(180_000, 50_000).shorter


def test_the_reason_names_what_stood_in_the_way_and_what_the_trial_showed(machine):
    machine.device.unlink()
    made = decide("auto", None, machine)
    assert made.reason == f"open {machine.device}: No such file or directory; {trial().sentence}"


def test_the_trial_flushes_where_the_lab_does(machine, tmp_path):
    asked = []
    machine.device.unlink()
    decide("auto", tmp_path, replace(machine, try_spinner=lambda directory: asked.append(directory) or trial()))
    assert asked == [tmp_path]


def test_a_trial_that_fails_is_no_failure_of_the_lab(machine):
    def refused(directory):
        raise UnfitError("write in /: Read-only file system.")

    machine.device.unlink()
    made = decide("auto", None, replace(machine, try_spinner=refused))
    assert made.chosen == "none" and "could not be tried: write in /: Read-only file system" in made.reason


@pytest.mark.parametrize("wanted", ["spinner", "none"])
def test_what_is_asked_for_by_name_is_neither_tried_nor_opened(machine, device, wanted):
    def never(directory):
        raise AssertionError

    made = decide(wanted, None, replace(machine, try_spinner=never))
    assert (made.chosen, made.reason, made.mend) == (wanted, "as asked", awake_module.AS_USUAL)


def test_pm_qos_that_was_asked_for_by_name_and_cannot_be_is_refused_with_what_mends_it(machine):
    machine.driver.write_text("none\n")
    with pytest.raises(
        UnfitError, match=r"lab.keep_awake is qos, but .* without a cpuidle driver. Mend it: .*haltpoll"
    ):
        decide("qos", None, machine)


# What mends it.


@pytest.mark.parametrize("driver", ["none\n", None])
def test_without_a_cpuidle_driver_the_device_is_of_no_use_and_on_a_guest_polling_is_named(machine, device, driver):
    machine.driver.unlink() if driver is None else machine.driver.write_text(driver)
    made = decide("auto", None, machine)
    assert made.chosen == "spinner" and "no effect, because this kernel runs without a cpuidle driver" in made.reason
    assert made.mend == f"modprobe cpuidle_haltpoll force=Y && echo 200000 > {machine.halt_poll_ns}"
    assert decide("auto", None, replace(machine, is_guest=lambda: False)).mend == ""


def test_who_is_not_root_is_given_a_udev_rule_for_his_own_group(machine, monkeypatch):
    monkeypatch.setattr(awake_module, "refusal_of", lambda device: 13)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    mend = decide("auto", None, replace(machine, is_guest=lambda: False)).mend
    assert mend.count("\n") == 0 and "udevadm control --reload" in mend
    for words in (
        'KERNEL=="cpu_dma_latency"',
        'GROUP="',
        'MODE="0660"',
        "udevadm trigger --name-match=cpu_dma_latency",
    ):
        assert words in mend
    on_guest = decide("auto", None, machine).mend
    assert on_guest == f"{mend}; or on this guest echo 200000 > {machine.halt_poll_ns}"
    machine.halt_poll_ns.write_text("200000\n")
    assert decide("auto", None, machine).mend == mend


def test_in_a_container_the_device_is_asked_for(machine):
    machine.device.unlink()
    machine.halt_poll_ns.write_text("200000\n")
    assert decide("auto", None, machine).mend == "docker run --device /dev/cpu_dma_latency"


# The trial itself.


def test_a_trial_measures_as_much_with_it_as_without_and_in_turn(tmp_path):
    kept = []

    @contextlib.contextmanager
    def keeping():
        kept.append("on")
        yield
        kept.append("off")

    made = tried(keeping, tmp_path)
    assert kept == ["on", "off"] * 4
    for found in (made.echo, made.late, made.flush):
        assert len(found.without) == len(found.with_it) > 30
        assert min(found.without + found.with_it) >= 0
    assert set(made.numbers) == {
        f"{name}_ns_p50{after}" for name in ("echo", "late", "flush") for after in ("", "_kept_awake")
    }
    assert list(tmp_path.iterdir()) == []
    assert tried(keeping, tmp_path) is made  # Once in a process.


def test_where_nothing_is_flushed_nothing_is_tried_to():
    assert tried(partial(contextlib.nullcontext), None).flush is None


# The spinner.


def spinners():
    """Children of ours that are of idle priority."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if (
                int(words[1]) == os.getpid()
                and words[0] != "Z"
                and os.sched_getscheduler(int(entry.name)) == os.SCHED_IDLE
            ):
                found.append(int(entry.name))
    return found


def test_one_spinner_of_idle_priority_runs_on_one_processor_as_long_as_it_is_wanted():
    with awake("none"):
        assert spinners() == []
    with awake("spinner"):
        assert wait_for(lambda: len(spinners()) == 1)
        (pid,) = spinners()
        assert wait_for(lambda: len(os.sched_getaffinity(pid)) == 1)
    assert spinners() == []


def test_a_spinner_dies_with_whoever_wanted_it(tmp_path):
    with process("keeper") as keeper:
        keeper.start(spun_by_a_child, str(tmp_path / "pid"))
        assert wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
        spinner = int((tmp_path / "pid").read_text())
        keeper.kill()
    assert wait_for(lambda: not Path(f"/proc/{spinner}").exists() or state_of(spinner) == "Z")


def spun_by_a_child(place):
    """In a process: keep awake, say who spins, and stay."""
    with spinning():
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        Path(place).write_text(f"{children[-1]}\n")
        time.sleep(600)


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "Z"
