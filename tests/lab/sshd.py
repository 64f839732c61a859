"""Another machine's part, played by an sshd on loopback in a network namespace of its own: no port of the machine is used."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

PORT = 2222
BEGINS_S = 60
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host_key
AuthorizedKeysFile {place}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
AllowTcpForwarding yes
SetEnv NUMBA_CACHE_DIR={cache} FARWRITE_TEST={place}
"""
CLIENT = """
Host farhost
  HostName 127.0.0.1
  Port {port}
  IdentityFile {place}/my_key
  UserKnownHostsFile {place}/known
  StrictHostKeyChecking accept-new
Host behind
  HostName 192.0.2.1
  IdentityFile {place}/my_key
  UserKnownHostsFile {place}/known
  StrictHostKeyChecking accept-new
  ProxyCommand ssh -F {place}/ssh_config -W 127.0.0.1:{port} farhost
"""
# The whole test runs in a namespace whose only device is loopback.
ISOLATED = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def sshd_place(place):
    """A directory with keys and configurations, and `farwrite` of this interpreter; skips where what is needed is missing."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    if os.getuid() != 0:
        pytest.skip("an sshd in a namespace of its own needs root")
    for key in ("host_key", "my_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / key], check=True)
    shutil.copy(place / "my_key.pub", place / "authorized")
    from farwrite.base import jit  # Says where machine code is.

    cache = os.environ["NUMBA_CACHE_DIR"]
    assert cache.endswith(jit.DIGEST)
    (place / "sshd_config").write_text(CONFIG.format(port=PORT, place=place, cache=cache))
    (place / "ssh_config").write_text(CLIENT.format(port=PORT, place=place))
    (place / "farwrite").write_text(f'#!/bin/sh\nexec {sys.executable} -m farwrite "$@"\n')
    (place / "farwrite").chmod(0o755)
    return place


@contextlib.contextmanager
def sshd_running(place):
    """The words that run a command beside an sshd, in a namespace that nobody else is in, as long as this block."""
    if not Path("/run/sshd").is_dir():
        pytest.skip("/run/sshd, which this sshd wants, is not there")
    with (
        (place / "log").open("wb") as log,
        subprocess.Popen([*ISOLATED, SSHD, "-D", "-e", "-f", place / "sshd_config"], stderr=log) as sshd,
    ):
        try:
            until_s = time.monotonic() + BEGINS_S
            while b"Server listening" not in (place / "log").read_bytes():
                assert sshd.poll() is None and time.monotonic() < until_s, (place / "log").read_text()
                time.sleep(0.05)
            yield ["nsenter", f"--net=/proc/{sshd.pid}/ns/net"]
        finally:
            sshd.kill()
