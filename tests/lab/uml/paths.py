"""Inside user-mode Linux: open-iscsi on a served disk, written to while the near site is killed.

    paths.py NEAR_URI FAR_URI    two paths, under dm-multipath
    paths.py URI                 one address, which follows who leads

The file system is never unmounted in between: I/O waits in dm-multipath, or in the session, and goes on. Says WRITING for the
test outside to kill the near site.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from steps import LIMIT_S, beat, check_files, report_after, run, step, tell, until, written_files

MOUNT = Path("/run/mnt")
BEFORE, AFTER = 50, 50  # Numbered writes before the near site is killed, and once the far one has a path.
BLOCK = 4096
STUCK_S = 150  # Less than the kernel's time from outside; a run beside twenty busy processes took 110 s.
STATE = [
    "iscsiadm -m session -P 3",
    "grep . /sys/class/iscsi_session/*/state /sys/class/iscsi_connection/*/*address /sys/block/sd*/device/state",
    "multipathd show paths format '%d %t %o %T %s'",
    "dmesg | tail -n 40",
    "grep -l '^State:.D' /proc/[0-9]*/status | xargs -r grep -h Name",
]
INITIATOR = "InitiatorName=iqn.2026-11.org.example:uml\n"
# A session's I/O fails, and so goes to another path, after replacement_timeout; with one path it may wait as long as it comes.
ISCSID = """\
node.startup = manual
node.session.timeo.replacement_timeout = {timeout_s}
node.session.initial_login_retry_max = 1000
node.conn[0].timeo.login_timeout = 5
node.conn[0].timeo.noop_out_interval = 2
node.conn[0].timeo.noop_out_timeout = 2
"""
# multipathd makes itself SCHED_RR 99, which comes before every other process and every worker of the kernel. Here there is one
# processor, which a busy machine lends for a few ms at a time, while polling_interval is 1 s of its time.
NOT_IN_REAL_TIME = ["setpriv", "--bounding-set=-sys_nice", "--"]
MULTIPATH = """\
defaults {
    user_friendly_names yes
    find_multipaths no
    polling_interval 1
    no_path_retry queue
}
blacklist {
    devnode "^(nbd|ram|loop|ubd|zram|sr)"
}
"""


def portal_of(uri: str) -> tuple[str, str]:
    """(address and port, name of the target)."""
    _, _, portal, target, _ = uri.split("/")
    return portal, target


def iscsiadm(*words: str, **options) -> str:
    return run("iscsiadm", *words, **options)


def block_of(number: int) -> bytes:
    """What the numbered write holds."""
    return b"%8d" % number * (BLOCK // 8)


def served_at() -> set[str]:
    """The addresses at which sessions are now, wherever they were sent."""
    found = set()
    for path in Path("/sys/class/iscsi_connection").glob("*/address"):
        with contextlib.suppress(OSError):  # It is connected to nobody.
            found.add(path.read_text().strip())
    return found


def connections() -> set[str]:
    """Our ends of the TCP connections that are established. proc(5)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "01"}


def map_name() -> str | None:
    """The multipath device, once there is one."""
    names = [path.read_text().strip() for path in Path("/sys/block").glob("dm-*/dm/name")]
    return names[0] if names else None


def paths_of() -> int:
    return len(list(Path("/sys/block").glob("dm-*/slaves/sd*")))


def log_in(portal: tuple[str, str], group: int = 1, *how: str) -> None:
    """A session, without discovery."""
    address, target = portal
    iscsiadm("-m", "node", "-o", "new", "-T", target, "-p", f"{address},{group}")
    iscsiadm("-m", "node", "-T", target, "-p", address, "--login", *how)


def multipath(near: tuple[str, str], far: tuple[str, str]) -> Path:
    """Both sites' disk as one device; until the far site leads it sends its session to the near one."""
    subprocess.Popen([*NOT_IN_REAL_TIME, "multipathd", "-d", "-v", "1"], stdout=sys.stderr, stderr=sys.stderr)
    told = iscsiadm("-m", "discovery", "-t", "sendtargets", "-p", near[0])
    if f"{near[0]},1 {near[1]}" not in told:
        sys.exit(f"discovery found {told}")
    iscsiadm("-m", "node", "-T", near[1], "-p", near[0], "--login")
    log_in(far, 2, "--no_wait")  # It is answered 0101h or 0301h, or not at all.
    until(lambda: map_name() is not None and paths_of() >= 1, "a path, and its multipath device")
    device = Path(f"/dev/mapper/{map_name()}")
    until(device.exists, "its name")
    return device


def main() -> None:
    near, *others = (portal_of(uri) for uri in sys.argv[1:])
    for directory, files in {
        "/etc/iscsi": {"initiatorname.iscsi": INITIATOR, "iscsid.conf": ISCSID.format(timeout_s=1 if others else 120)},
        "/etc/multipath": {"conf.d/here.conf": MULTIPATH},
    }.items():  # fmt: skip
        run("mount", "-t", "tmpfs", "tmpfs", directory)
        for name, text in files.items():
            (Path(directory) / name).parent.mkdir(exist_ok=True)
            (Path(directory) / name).write_text(text)
    MOUNT.mkdir()
    run("/lib/systemd/systemd-udevd", "--daemon", "--children-max=2")
    run("iscsid")
    if others:
        device = multipath(near, others[0])
    else:
        log_in(near)
        device = Path("/dev/sda")
        until(device.exists, "a disk")
    run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", device)
    run("mount", device, MOUNT)
    digests = written_files(MOUNT)

    step("numbered writes, and the near site's death under them")
    journal = MOUNT / "numbered"
    slowest_s, number, last, before = 0.0, 0, None, connections()
    far = others[0][0].rpartition(":")[0] if others else ""
    limit_s = time.monotonic() + LIMIT_S
    with journal.open("wb", buffering=0) as file:
        while number != last:
            if number == BEFORE:
                tell("WRITING")
            begun_s = time.monotonic()
            file.write(block_of(number))
            os.fsync(file.fileno())
            slowest_s = max(slowest_s, time.monotonic() - begun_s)
            number += 1
            if number > BEFORE and last is None and (far in served_at() if others else connections() - before):
                last = number + AFTER
            elif last is None and number > BEFORE:
                if time.monotonic() > limit_s:
                    sys.exit(f"no other site has been seen within {LIMIT_S} s")
                time.sleep(0.1)
    tell(f"WROTE {number}, none refused; the slowest took {slowest_s:.1f} s")
    run("umount", MOUNT)
    run("e2fsck", "-f", "-n", device)
    run("mount", device, MOUNT)
    check_files(MOUNT, digests)
    data = journal.read_bytes()
    if data != b"".join(map(block_of, range(number))):
        sys.exit("the numbered writes are not what was written")
    run("umount", MOUNT)
    sessions = iscsiadm("-m", "session")
    for portal, _ in others:
        if portal not in sessions:
            sys.exit(f"the far site's session is not there: {sessions}")
    subprocess.run(["pkill", "multipathd"], check=False)
    tell("WHOLE")


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    beat()
    report_after(STUCK_S, *STATE)
    main()
