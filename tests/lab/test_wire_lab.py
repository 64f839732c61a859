"""Rounds of a real lab over an encrypted, compressed connection: nothing is lost, and a tunnel that is killed is a lost peer."""

import os
import signal
import time
from dataclasses import replace

import msgspec
import pytest
from holder import children
from small_lab import LINK, compiled, lab_or_skip, load_begun, skip_if_forbidden, small

from farwrite import recording
from farwrite.base.errors import UnfitError
from farwrite.base.units import NS_PER_MS, NS_PER_S
from farwrite.compare.figures import identity_of
from farwrite.experiment import run as running
from farwrite.experiment import run_journal as runs
from farwrite.experiment.round import audit_of, finish_sides, play, start_sides
from farwrite.lab import lab as labs
from farwrite.lab.survey import CONNECTIONS, hang_up
from farwrite.progress import Silence
from farwrite.workload.profile import parse
from rounds import completed_in, order

pytestmark = pytest.mark.lab

PROFILE = """
title = "Over a network that is not ours"

[lab]
durability = "memory"
journal = "16 MiB"
volume = "16 MiB"
encryption = "tls"
compression = "zstd"

[distance]
miles = [20]

[run]
rounds = 1
round = "150 ms"
survey_echoes = 10
floor_flushes = 5
retries = 1

[[cell]]
name = "write"
protocols = ["A", "C", "local"]
queue_depth = 4

[drill]
kills = 1
miles = 20
protocols = ["C"]
load = "100 ms"
cut = "200 ms"
"""


def sealed(others=0, **changed):
    """A small lab that encrypts and compresses."""
    return replace(small(), others=others, **{"encryption": "tls", "compression": "zstd", **changed})


@pytest.fixture(scope="module")
def lab():
    with lab_or_skip(sealed()) as opened:
        yield opened


def tunnels(lab):
    """The processes that a lab's sites have."""
    return [pid for site in (lab.near, *(span.far for span in lab.spans)) for pid in children(site.process.pid)]


@pytest.mark.parametrize("protocol", ["A", "B", "C", "C2"])
def test_a_round_over_tunnels_loses_nothing(lab, protocol):
    chosen = order(protocol=protocol)
    played = play(lab, chosen)
    observed = played.near
    assert played.status == 0 and observed.tunnel_ends == ()
    audit, _ = audit_of(lab, chosen, completed_in(observed))
    assert (audit.lost, audit.damaged) == (0, 0) and audit.completed == chosen.write_count_max
    assert tunnels(lab) == []


def test_every_far_site_has_tunnels_of_its_own():
    with lab_or_skip(sealed(others=1, compression="lz4")) as lab:
        chosen = order(protocol="quorum", quorum=2, connections=tuple(span.held("data") for span in lab.spans),
                       write_count_max=1 << 20, duration_ns=300 * NS_PER_MS, slice_ns=30 * NS_PER_MS, slice_count=10)  # fmt: skip
        start_sides(lab, chosen)
        load_begun(lab.near.process, lab.near.board)
        assert len(tunnels(lab)) == 4
        observed = finish_sides(lab, chosen).near
        audit, _ = audit_of(lab, chosen, completed_in(observed))
        assert (observed.status, audit.lost, audit.damaged, audit.completed) == (0, 0, 0, completed_in(observed))
        assert tunnels(lab) == []


@pytest.mark.parametrize("whose", ["near", "far"])
def test_a_killed_tunnel_is_a_lost_peer_and_leaves_nothing(lab, whose):
    chosen = order(write_count_max=1 << 20, duration_ns=20 * NS_PER_S, peer_timeout_ns=5 * NS_PER_S)
    start_sides(lab, chosen)
    load_begun(lab.near.process, lab.near.board)
    site = lab.near if whose == "near" else lab.far
    [victim] = children(site.process.pid)
    os.kill(victim, signal.SIGKILL)
    played = finish_sides(lab, chosen)
    observed = played.near
    assert observed.status < 0 and played.fars[0].status < 0
    assert list(observed.tunnel_ends) == [
        "The tunnel's process was killed." if whose == "near"
        else "The connection was cut off: the peer's tunnel is gone, or the network between."
    ]  # fmt: skip
    audit, _ = audit_of(lab, chosen, completed_in(observed))
    assert (audit.lost, audit.damaged) == (0, 0)
    assert tunnels(lab) == []
    again = order()
    assert play(lab, again).status == 0  # The lab is as good as before.


def test_a_killed_site_takes_its_tunnel_along(lab):
    chosen = order(write_count_max=1 << 20, duration_ns=20 * NS_PER_S)
    start_sides(lab, chosen)
    load_begun(lab.near.process, lab.near.board)
    [tunnel] = children(lab.near.process.pid)
    lab.near.kill()
    until_s = time.monotonic() + 10
    while alive(tunnel) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not alive(tunnel)
    lab.revive()
    assert tunnels(lab) == []


def alive(pid):
    """Whether it runs: a dead orphan may wait for init to notice."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return not stat.read().rpartition(") ")[2].startswith("Z")
    except OSError:
        return False


def test_the_probe_stays_bare_so_that_floors_are_the_networks(lab):
    assert lab.near.call(kind_of, "probe") == "AF_INET"
    lab.join("data")
    assert lab.near.call(kind_of, "data") == "AF_UNIX"
    lab.hang_up("data")
    lab.far.call(hang_up, "data")


def kind_of(name):
    """In a site: the family of a connection that it holds."""
    return CONNECTIONS[name].family.name


# A whole run.


@pytest.fixture(scope="module")
def run_and_keys(tmp_path_factory):
    """A run's report, its directory, and the keys that were made for it."""
    compiled()
    made = []
    real = labs.secrets.token_bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labs.secrets, "token_bytes", lambda size: made.append(real(size)) or made[-1])
        run = runs.begin(
            parse(PROFILE, changes=[f"lab.link={LINK}"]), "wire", 3, tmp_path_factory.mktemp("wire") / "out", Silence()
        )
        try:
            return running.execute(run), run.directory, made
        except UnfitError as refusal:
            skip_if_forbidden(refusal)
            raise


def test_a_run_over_tunnels_loses_nothing_in_rounds_and_drills_and_says_what_carried_it(run_and_keys):
    made = run_and_keys[0].recording
    assert (made.lab.encryption, made.lab.compression) == ("tls", "zstd")
    assert "encryption tls, compression zstd" in identity_of(made)["transport"]
    assert made.rounds and len(made.drills) == 2
    for item in [*made.rounds, *made.drills]:
        assert item.audit is not None
        assert (item.audit.lost, item.audit.damaged) == (0, 0)


def test_the_bytes_of_the_wire_are_those_of_the_network(run_and_keys):
    protocols = {cell.id: cell.protocol for cell in run_and_keys[0].recording.cells}
    for item in run_and_keys[0].recording.rounds:
        if protocols[item.cell] == "local":
            assert item.wire_bytes == 0
        else:  # Payloads do not compress, headers do: a frame's and a TLS record's own bytes are all that may come on top.
            assert item.issued * 4096 < item.wire_bytes < item.issued * (4096 + 64 + 16 + 64) + 10_000


def test_the_key_of_a_run_is_its_own_and_is_nowhere_in_what_it_saves(run_and_keys):
    report, directory, keys = run_and_keys
    assert len(keys) == 1 and len(keys[0]) == 32
    saved = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert saved and keys[0] not in saved and keys[0].hex().encode() not in saved
    assert msgspec.json.encode(keys[0])[1:-1] not in saved
    assert recording.read(directory / "report.json").recording.lab == report.recording.lab
