"""How long our processes waited for a processor and what others used of them: two readings of /proc, made up and real."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from farwrite.base.host import noise
from farwrite.base.host.noise import Reading, Thread, noise_between, read_noise

ME = os.getpid()
NEAR, TUNNEL, FAR, LINK = 101, 102, 103, 104
PARENTS = {ME: 1, NEAR: ME, TUNNEL: NEAR, FAR: ME, LINK: ME}
TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


def reading(at_ns, foreign, total, **waited_ns):
    """Every process has one thread of its own number, which ran for twice as long as it waited."""
    pids = {"me": ME, "near": NEAR, "tunnel": TUNNEL, "far": FAR, "link": LINK}
    threads = {pids[name]: Thread(pids[name], 2 * ns, ns) for name, ns in waited_ns.items()}
    return Reading(at_ns, foreign, total, threads, PARENTS)


def between(before, after):
    return noise_between(before, after, [NEAR], [FAR], [LINK])


def test_a_process_waits_with_its_tunnels_and_nobody_elses():
    before = reading(0, 0, 0, me=10, near=100, far=100, link=100)
    after = reading(1000, 50, 200, me=10, near=105, tunnel=20, far=103, link=101)  # The tunnel began meanwhile.
    found = between(before, after)
    assert (found.near_run_delay_ns, found.far_run_delay_ns, found.link_run_delay_ns) == (25, 3, 1)
    assert found.duration_ns == 1000


def test_what_ran_and_was_not_ours_is_foreign():
    before = reading(0, 1000, 5000, me=0, near=0, far=0, link=0)
    waited = 5 * TICK_NS  # Each of four ran 10 ticks.
    after = reading(10**9, 1000 + 100, 5000 + 200, me=waited, near=waited, far=waited, link=waited)
    found = between(before, after)
    assert found.own_share == pytest.approx(0.2) and found.foreign_share == pytest.approx(0.5)
    # A program that ended takes its ticks with it, unless somebody waited for it.
    assert between(before, reading(1, 970, 5200, me=waited, near=waited, far=waited, link=waited)).foreign_share == 0


def test_the_kernels_own_threads_are_no_program_and_what_a_program_waited_for_is(monkeypatch):
    def stat(parent, flags, *used):
        return " ".join(["(x)", "S", str(parent), *"0000", str(flags), *"0000", *map(str, used), "20"])

    kthread = noise.PF_KTHREAD
    texts = {"/proc/2": stat(0, kthread, 9, 9, 9, 9), "/proc/7": stat(1, 0, 1, 2, 30, 40), f"/proc/{ME}": stat(1, 0, 5, 5, 5, 5)}
    texts |= {"/proc/8": stat(ME, 0, 6, 6, 6, 6)}
    pids = [path.rpartition("/")[2] for path in texts]
    monkeypatch.setattr(noise, "listed", lambda directory: pids if directory == "/proc" else [])
    monkeypatch.setattr(noise, "contents", lambda path: texts.get(path.removesuffix("/stat"), "cpu 1 2 3 4 5 6 7 8 100 100"))
    found = read_noise()
    assert (found.foreign_ticks, found.total_ticks) == (73, 36)
    assert found.parents == {ME: os.getppid(), 8: ME}


def test_what_a_kernel_does_not_tell_is_unknown_and_not_nothing(monkeypatch):
    mute = Reading(0, 100, 200, {}, PARENTS)
    found = between(mute, Reading(1000, 200, 400, {}, PARENTS))
    assert found == noise.Noise(1000, None, None, None, None, None)
    monkeypatch.setattr(noise, "contents", lambda path: "0 0 0\n")  # Without CONFIG_SCHED_INFO.
    assert noise.threads_of(ME) == []
    monkeypatch.setattr(noise, "contents", lambda path: "")
    assert noise.threads_of(ME) == [] and noise.total_ticks() == 0 and noise.running() == {}
    assert noise.family(ME, {}) == {ME: os.getppid()}


def test_a_process_of_another_machine_or_one_that_is_gone_is_unknown():
    before, after = reading(0, 0, 0, near=1, far=1, link=1), reading(9, 9, 9, near=2, link=2)
    assert between(before, after).far_run_delay_ns is None
    assert noise_between(before, after, [NEAR], [None], []).far_run_delay_ns is None
    assert noise_between(before, after, [NEAR], [], []).link_run_delay_ns == 0  # The kernel carries it.


def test_the_name_of_a_command_breaks_no_line(monkeypatch):
    texts = {"/proc/7/stat": f"7 (a) b (S 1) S {ME} 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20"}
    monkeypatch.setattr(noise, "listed", lambda directory: ["7", "8"])
    monkeypatch.setattr(noise, "contents", lambda path: texts.get(path, ""))
    assert noise.running() == {7: noise.Program(ME, False, 26)}
    assert noise.family(ME, noise.running()) == {ME: os.getppid(), 7: ME}


BURN = "import os, time\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nprint(flush=True)\nwhile True: pass"


def test_two_that_share_a_processor_wait_for_it():
    if not noise.threads_of(ME):
        pytest.skip("this kernel does not count what threads ran")
    burning = [subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for process in burning:
            process.stdout.readline()
        before = read_noise()
        time.sleep(0.3)
        after = read_noise()
    finally:
        for process in burning:
            process.kill()
            process.wait()
            process.stdout.close()
    found = noise_between(before, after, [burning[0].pid], [burning[1].pid], [])
    # They are our children, so what they use is no stranger's; both wait, because they cannot both run.
    assert found.near_run_delay_ns > 0 and found.far_run_delay_ns > 0 and found.own_share > 0
