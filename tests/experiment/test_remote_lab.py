"""How ssh is started to carry a port."""

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
