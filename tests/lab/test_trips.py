"""`farwrite trips` in a lab: QEMU's initiator at our iSCSI door, at a distance beside which this machine's noise is nothing."""

import json
import shutil
from pathlib import Path

import pytest
from small_lab import LINK, skip_if_forbidden

from console import farwrite
from farwrite.base.errors import EXIT_UNFIT, UnfitError

pytestmark = pytest.mark.lab


def trips(*words):
    done = farwrite("trips", "--accept-link-error", "--link", LINK, "--json", "-q", *words)
    if done.returncode == EXIT_UNFIT and "qemu" not in done.stderr:
        skip_if_forbidden(UnfitError(done.stderr))
    return done


@pytest.mark.skipif(not shutil.which("qemu-io"), reason="needs qemu-io (Debian: qemu-utils)")
@pytest.mark.skipif(not any(Path("/usr/lib").glob("*/qemu/block-iscsi.so")), reason="needs Debian's qemu-block-extra")
def test_our_iscsi_door_takes_one_trip_for_64_kib_and_two_for_512():
    done = trips("--rtt", "20 ms", "--door", "iscsi", "--size", "64k,512k", "--writes", "6")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = document["result"]["targets"][0]["rows"]
    assert [row["expected"] for row in rows] == [1, 2]
    assert [round(row["k_fastest"]) for row in rows] == [1, 2]
    assert rows[1]["costly_keys"] == [["FirstBurstLength"]]
    assert document["recording"]["targets"][0]["keys"]["InitialR2T"] == "No"


@pytest.mark.skipif(not shutil.which("qemu-io"), reason="needs qemu-io (Debian: qemu-utils)")
def test_a_target_that_ends_is_said_to_have_ended():
    done = trips("--miles", "150", "--far", "sleep 0.2; exit 3", "--uri", "nbd://$FAR/disk")
    assert done.returncode == EXIT_UNFIT
    assert "The far command ended with exit code 3" in done.stderr
