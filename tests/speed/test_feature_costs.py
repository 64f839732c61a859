"""The README's table of what features cost says what is recorded, and nothing else."""

import json

import feature_costs as costs


def test_the_readme_says_what_is_recorded():
    assert costs.table_in(costs.README.read_text()) == costs.table(), "run tests/speed/feature_costs.py --write"
    assert len(costs.README.read_text().splitlines()) <= 120


def test_what_is_not_recorded_is_said_and_what_is_recorded_is_told(tmp_path):
    assert costs.table(tmp_path).count(costs.NOT_YET) == len(costs.FEATURES)
    rounds = [{"with": {"at_once_ns_max": 4e6, "settled_ns_p50": 11e5, "before_ns_p50": 1e6}}]
    (tmp_path / "snapshots.json").write_text(json.dumps({"cases": [{"miles": 150, "depth": 16, "rounds": rounds}]}))
    said = {"switch_pause_ns": 20_000_000, "copied_over_allocated": 1.01, "seconds": 6.0}
    moves = [
        {"miles": 150, "depth": 16, "role": role, "said": said, "while_ns_p50": 3e6, "before_ns_p50": 2e6}
        for role in ("leads", "follows", "passes")
    ]  # fmt: skip
    (tmp_path / "migrations.json").write_text(json.dumps({"moves": moves, "written_bytes": 128 << 20}))
    made = costs.table(tmp_path)
    for words in ("longest write 4.00 ms", "median x 1.10", "20.0 ms at the switch", "x 1.01 of", "x 1.50 of writes beside it"):
        assert words in made, made
