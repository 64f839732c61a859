"""`farwrite case` for real, and small: volumes filled at their sites, a database with snapshots and a copy over a link."""

import json

import pytest
from small_lab import LINK, skip_if_forbidden

from console import farwrite
from farwrite.base.errors import EXIT_UNFIT, UnfitError

pytestmark = pytest.mark.lab

SMALL = """
title = "A small case"
about = "Whether it works."
assumed = ["nothing of it is measured to be known"]

[thin]
volumes = 5
size = "4 MiB"
stands_for = "40 GiB"
level = "10"
miles = 20
link = "1 Gbit/s"
written_least = "20 %"
written_most = "40 %"

[database]
size = "256 MiB"
room = "128 MiB"
miles = 20
link = "1 Gbit/s"
far_miles = 150
far_link = "1 Gbit/s"
period = "15 min"
scaled = "1 s"
pairs = 1
copies = 1
growth = "60 TB"

[[database.stream]]
name = "dialogue"
writes = "60 /s"
block = "8 KiB"
place = "hot-spot"
region = "4 MiB"
"""


def test_a_small_case_measures_volumes_snapshots_and_a_copy_for_real(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    words = ["--link", LINK, "--memory", "--json", "-q", "--out", tmp_path / "out"]
    done = farwrite("case", tmp_path / "small.toml", *words)
    made = json.loads(done.stdout)["recording"] if done.stdout else {"unknown": {"all": done.stderr}}
    if done.returncode == EXIT_UNFIT or any("namespace" in reason for reason in made["unknown"].values()):
        skip_if_forbidden(UnfitError(f"{done.stderr}{made['unknown']}"))
    assert done.returncode == 0 and not made["unknown"], (done.stderr, made["unknown"])
    # More copies than their nodes could hold whole: what one was granted ahead is given back before the next is filled.
    assert len(made["thin"]["volumes"]) == 5 and made["thin"]["capacity_bytes"] < 5 * 2 * (4 << 20)
    for volume in made["thin"]["volumes"]:
        assert 0.2 * (4 << 20) - 4096 <= volume["written_bytes"] <= 0.4 * (4 << 20) + 4096
        assert volume["used_bytes"] >= volume["written_bytes"] and volume["used_bytes"] % (64 << 10) == 0
        assert len(volume["stored_bytes"]) == 2 and min(volume["stored_bytes"]) >= volume["written_bytes"]
    full, changed = made["database"]["copies"]
    assert full["is_full"] and not changed["is_full"] and full["shipped_bytes"] >= 4 << 20 > changed["shipped_bytes"] > 0
    assert changed["recovery_point_s_max"] >= 1 and made["database"]["failed_writes"] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["case.json"]
