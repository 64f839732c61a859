"""Inside user-mode Linux: PostgreSQL on the kernel's NBD client, until the near site is killed, and then at the far one.

    database.py POSTGRES_BIN CLUSTER NEAR_ADDRESS FAR_ADDRESS

CLUSTER is what initdb has made elsewhere, which takes ten times as long in here; it is copied onto the disk. Says LOADED once
pgbench runs, for the test outside to kill the near site, and LOST when the clients have lost their database. pgbench notes a
transaction once its COMMIT was answered, in memory that has nothing to do with the disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from steps import beat, check_files, run, step, tell, until, written_files

BIN, CLUSTER, NEAR, FAR = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
MOUNT, LOG = Path("/run/mnt"), Path("/run/pg")
DATA = MOUNT / "data"
AS = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
CLIENTS = 4
TIMEOUT_S = 5  # Without one the kernel waits for ever for the answer of a request that was sent when its connection ended.
PORT = ["-h", str(LOG), "-p", "5432"]
SETTINGS = {
    "listen_addresses": "", "unix_socket_directories": str(LOG), "shared_buffers": "8MB", "max_connections": "10",
    "autovacuum": "off", "max_wal_size": "64MB", "min_wal_size": "32MB", "log_checkpoints": "off",
}  # fmt: skip


def attach(device: str, address: str) -> None:
    """The kernel's client, as an administrator starts it."""
    host, port = address.rsplit(":", 1)
    run("nbd-client", host, port, device, "-N", "volume", "-b", "4096", "-t", str(TIMEOUT_S))


def postgres(*words: str, **options) -> str:
    return run(*AS, BIN / words[0], *words[1:], cwd="/run", **options)


def start() -> None:
    settings = " ".join(f"-c {name}='{value}'" for name, value in SETTINGS.items())
    postgres("pg_ctl", "-D", str(DATA), "-l", str(LOG / "log"), "-w", "-t", "100", "-o", settings, "start")


def query(text: str) -> list[int]:
    return [int(word) for word in postgres("psql", *PORT, "-qXAt", "-F", " ", "-c", text, "postgres").split()]


def main() -> None:
    for directory in (MOUNT, LOG):
        directory.mkdir()
    run("chown", "postgres:", LOG)
    attach("/dev/nbd0", NEAR)
    run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", "/dev/nbd0")
    run("mount", "/dev/nbd0", MOUNT)
    digests = written_files(MOUNT)
    run("cp", "-a", CLUSTER, DATA)
    run("sync", "-f", MOUNT)  # As initdb does at its end.
    start()
    postgres("pgbench", *PORT, "-i", "-q", "-s", "1", "-I", "dtgp", "postgres")

    step("pgbench, and the near site's death under it")
    with subprocess.Popen(
        [*AS, str(BIN / "pgbench"), *PORT, "-n", "-c", str(CLIENTS), "-T", "60", "-l", f"--log-prefix={LOG}/acked", "postgres"],
        cwd="/run", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as load:  # fmt: skip
        until(lambda: query("SELECT count(*) FROM pgbench_history")[0] >= 20, "a few transactions")
        tell("LOADED")
        said, _ = load.communicate(timeout=110)
    acked = sum(len(path.read_text().splitlines()) for path in LOG.glob("acked*"))
    tell(f"LOST after {acked} transactions")
    if "aborted" not in said or not acked:
        sys.exit(f"pgbench did not lose its database:\n{said}")
    subprocess.run(["pkill", "-9", "-u", "postgres"], check=False)
    until(lambda: subprocess.run(["pgrep", "-u", "postgres"], capture_output=True, check=False).returncode, "its end")
    run("umount", MOUNT)
    subprocess.run(["nbd-client", "-d", "/dev/nbd0"], capture_output=True, check=False)  # It has ended by itself.

    attach("/dev/nbd1", FAR)
    run("mount", "/dev/nbd1", MOUNT)  # Its journal is played back.
    run("umount", MOUNT)
    run("e2fsck", "-f", "-n", "/dev/nbd1")
    run("mount", "/dev/nbd1", MOUNT)
    check_files(MOUNT, digests)
    start()
    there, of_accounts, of_tellers, of_branches, of_history = query(
        "SELECT (SELECT count(*) FROM pgbench_history), (SELECT sum(abalance) FROM pgbench_accounts), "
        "(SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches), "
        "(SELECT sum(delta) FROM pgbench_history)"
    )
    tell(f"FOUND {there} transactions of {acked} that were answered")
    if not acked <= there <= acked + CLIENTS:
        sys.exit(f"{acked} transactions were answered and at most {CLIENTS} more under way; {there} are in the table")
    if not of_accounts == of_tellers == of_branches == of_history:
        sys.exit(f"the balances do not add up: {of_accounts}, {of_tellers}, {of_branches}, {of_history}")
    query("INSERT INTO pgbench_history (delta) VALUES (1) RETURNING delta")  # And it goes on.
    postgres("pg_ctl", "-D", str(DATA), "-m", "fast", "-w", "stop")
    run("umount", MOUNT)
    run("e2fsck", "-f", "-n", "/dev/nbd1")
    run("nbd-client", "-d", "/dev/nbd1")
    tell("WHOLE")


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    beat()
    main()
