"""How ssh is started to carry a port, and what ends it."""

import os
import signal
import tempfile
from contextlib import contextmanager
from types import SimpleNamespace

from farwrite.experiment.remote import remote_lab
from farwrite.workload.ssh_host import far_host


def test_ssh_carries_a_port_beside_a_session_so_that_sshd_sends_at_once(monkeypatch):
    commands = []

    @contextmanager
    def started(command, stderr):
        commands.append(command)
        yield SimpleNamespace(poll=lambda: None)

    monkeypatch.setattr(remote_lab, "started", started)
    monkeypatch.setattr(remote_lab, "answers_at", lambda port: True)
    with remote_lab.forwarding(far_host("ssh://there"), "192.0.2.1", 7) as port:
        pass
    (command,) = commands
    assert f"127.0.0.1:{port}:[192.0.2.1]:7" in command and "-N" not in command and command[-2:] == ["there", remote_lab.WAITS]


def test_what_a_terminal_or_a_service_manager_says_to_all_processes_at_once_ends_no_ssh_before_we_end_it():
    with tempfile.TemporaryFile() as stderr, remote_lab.started(["cat"], stderr) as ssh:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(ssh.pid, number)
        ssh.stdin.write(b"still here")
        assert os.read(ssh.stdout.fileno(), 100) == b"still here"
    assert ssh.returncode is not None
