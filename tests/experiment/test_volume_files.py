"""The files of a kept volume: what a second opening must find, who may open it, and what is never begun anew."""

import os
from pathlib import Path

import pytest

from farwrite.base.errors import UnfitError, UsageError
from farwrite.engine.vote import Voter
from farwrite.experiment.serve import volume_files
from farwrite.experiment.serve.volume_files import Settings, kept_files, new_files, new_number, read_settings

SETTINGS = Settings(
    volume=new_number(), size_bytes=1 << 20, replicas=2, has_witness=True, protocol="C", policy="consent", quorum=0,
    peer_timeout_ns=10**9, link={"miles": 20.0},
)  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(volume_files, "JOURNAL_BYTES", 1 << 20)
    monkeypatch.setattr(volume_files, "LOCK_S", 0.0)


@pytest.fixture
def kept(tmp_path):
    with new_files(SETTINGS, tmp_path / "vol", keep=True):
        pass
    return tmp_path / "vol"


def test_a_volume_is_opened_again_with_its_settings_and_everything_its_voters_have_promised(kept):
    assert read_settings(kept) == SETTINGS
    with kept_files(SETTINGS, kept) as files:
        assert set(files.disks) == {"near", "far"} and set(files.ballots) == {"near", "far", "third"}
        for epoch, (name, descriptor) in enumerate(sorted(files.ballots.items()), 5):
            Voter(name, descriptor).promise(epoch, "near")
        os.pwrite(files.disks["near"].volume_fd, b"here", 4096)
    with kept_files(SETTINGS, kept) as files:
        promised = {name: Voter(name, descriptor).ballot.epoch for name, descriptor in files.ballots.items()}
        assert promised == {"far": 5, "near": 6, "third": 7}
        assert os.pread(files.disks["near"].volume_fd, 4, 4096) == b"here"
        assert os.pread(files.disks["far"].volume_fd, 4, 4096) == bytes(4)


def test_a_voter_without_its_ballot_is_not_given_an_empty_one(kept):
    (kept / "third" / volume_files.BALLOT).unlink()
    with pytest.raises(UnfitError, match="has forgotten what it promised"), kept_files(SETTINGS, kept):
        pass
    assert not (kept / "third" / volume_files.BALLOT).exists()


def test_a_volume_is_served_once_at_a_time_and_another_is_not_begun_over_it(kept):
    with kept_files(SETTINGS, kept):
        for opened in (kept_files(SETTINGS, kept), new_files(SETTINGS, kept, keep=True)):
            with pytest.raises(UnfitError, match="is served already"), opened:
                pass
    with pytest.raises(UsageError, match="holds a volume"), new_files(SETTINGS, kept, keep=True):
        pass
    with kept_files(SETTINGS, kept):
        pass


def test_names_are_durable_before_a_volume_is_handed_over(tmp_path, monkeypatch):
    """fsync(2) of a file says nothing of its name: of the settings', the journals' and the ballots' directories as well."""
    synced, real = set(), os.fsync

    def fsync(descriptor):
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with new_files(SETTINGS, tmp_path / "vol", keep=True):
        assert {str(tmp_path / "vol"), *(str(tmp_path / "vol" / name) for name in ("near", "far", "third"))} <= synced


@pytest.mark.parametrize("change", [
    b'"format": 2', b'"replicas": 4', b'"protocol": "Z"', b'"quorum": 3', b'"size_bytes": 5',
    b'"peer_timeout_ns": 0', b'"other": 1',
])  # fmt: skip
def test_settings_that_nobody_wrote_so_are_refused(kept, change):
    path, name = kept / volume_files.SETTINGS, change.partition(b":")[0]
    lines = [line for line in path.read_bytes().splitlines() if name not in line and line.strip() not in (b"{", b"}")]
    lines[-1] = lines[-1].rstrip(b",")
    path.write_bytes(b"{" + change + b"," + b"\n".join(lines) + b"}")
    with pytest.raises(UsageError, match="is not what farwrite serve --keep writes"):
        read_settings(kept)
