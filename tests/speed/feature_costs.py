"""What each feature costs, from what is recorded in results/: the table of the README.

    tests/speed/feature_costs.py          prints it
    tests/speed/feature_costs.py --write  puts it into the README

A feature that is not recorded says so. `test_feature_costs.py` holds the README to this.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from farwrite.analysis import analysis_of
from farwrite.analysis import case_recording as cases
from farwrite.base.documents import found_at, read_document
from farwrite.base.files import write_atomically
from farwrite.base.units import format_rate, format_size, format_time, rate_bits_per_s
from farwrite.recording import read

ROOT = Path(__file__).resolve().parents[2]
RESULTS, README = ROOT / "results", ROOT / "README.md"
HEAD = "| feature | what it costs | measured by |"
MILES = 150
NOT_YET = "not recorded yet"


class Feature(NamedTuple):
    """A row: what it is called, what is recorded, how to record it, and what that says."""

    name: str
    recorded: str
    command: str
    told: Callable[[Path], str]


def document(path: Path) -> Any:
    return json.loads(read_document(path, "read"))


def a_write_far_away(path: Path) -> str:
    cells = {cell.miles: cell.response_ns_p50.value for cell in analysis_of(read(path)).cells if cell.name == "write"
             and cell.protocol == "C"}  # fmt: skip
    near, some, far = (format_time(cells[miles] or 0) for miles in (0.0, 20.0, float(MILES)))
    return f"{some} at 20 miles and {far} at {MILES}, of {near} at 0 (median)"


def a_snapshot(path: Path) -> str:
    (case,) = [one for one in document(path)["cases"] if (one["miles"], one["depth"]) == (MILES, 16)]
    rounds = case["rounds"]
    longest = median(one["with"]["at_once_ns_max"] for one in rounds)
    settled = median(one["with"]["settled_ns_p50"] / one["with"]["before_ns_p50"] for one in rounds)
    where = f"{MILES} miles, 16 under way"
    return f"longest write {format_time(longest)} about the instant; median x {settled:.2f} after 1 s ({where})"


def a_copy(path: Path) -> str:
    made = document(path)
    (case,) = [one for one in made["cases"] if one["miles"] == MILES and rate_bits_per_s(one["rate"]) == 10**8
               and one["change_bytes_per_s"] == 8 << 20]  # fmt: skip
    worst = max(one["recovery_point_s_max"] or 0 for one in case["copies"])
    return (
        f"recovery point {worst:.0f} s at worst, copied every {made['period_s']:g} s over {format_rate(10**8)} while "
        f"{format_size(8 << 20)}/s change"
    )


def thin_room(path: Path) -> str:
    part = cases.read(path).thin
    assert part is not None
    ratio = median(one.used_bytes / one.written_bytes for one in part.volumes)
    return f"x {ratio:.2f} of what is written, in extents of 64 KiB, and a log of {format_size(part.journal_bytes)} a copy"


def moves_of(path: Path, role: str) -> list[dict[str, Any]]:
    return [one for one in document(path)["moves"] if one["miles"] == MILES and one["depth"] == 16 and one["role"] == role]


def a_migration(path: Path) -> str:
    moves = moves_of(path, "leads")
    switch = median(one["said"]["switch_pause_ns"] for one in moves)
    copied = median(one["said"]["copied_over_allocated"] for one in moves)
    return f"nobody served for {format_time(switch)} at the switch; x {copied:.2f} of what is allocated copied"


def a_group_move(path: Path) -> str:
    moves = [one for one in moves_of(path, "passes") if one["said"]]
    waited = median(one["said"]["switch_pause_ns"] for one in moves)
    copied = median(one["said"]["copied_over_allocated"] for one in moves)
    return f"clients waited {format_time(waited)} at the switch, none connected anew; x {copied:.2f} of what is allocated copied"


def a_lost_node(path: Path) -> str:
    made = document(path)
    rounds = [one for one in made["events"] if one["event"] == "lost" and one["budget"] is None]
    slower = median(one["parts"]["while"]["p99_ns"] / one["parts"]["before"]["p99_ns"] for one in rounds)
    moved = format_size(median(one["moved_bytes"] for one in rounds))
    takes = median(one["seconds"] for one in rounds)
    return f"p99 x {slower:.1f} of writes beside it; {moved} take {takes:.0f} s ({made['miles']} miles)"


def a_resync(path: Path) -> str:
    moves = [one for one in moves_of(path, "follows") if one["while_ns_p50"] and one["before_ns_p50"]]
    slower = median(one["while_ns_p50"] / one["before_ns_p50"] for one in moves)
    takes = median(one["said"]["seconds"] for one in moves)
    written = format_size(document(path)["written_bytes"])
    return f"median x {slower:.2f} of writes beside it; {written} take {takes:.1f} s"


def a_failover(path: Path) -> str:
    (made,) = [one for one in document(path) if (one["setup"]["protocol"], one["setup"]["policy"]) == ("C", "consent")]
    found = made["answer"]["events"][0]["time_p50"]
    where = f"median of {found['count']}, process killed, {MILES} miles"
    return f"{format_time(found['value'])} until writes are served again ({where})"


FEATURES = (
    Feature("a write that is durable far away", "baselines/limits.json", "farwrite run limits", a_write_far_away),
    Feature("a snapshot", "snapshots.json", "make snapshots", a_snapshot),
    Feature("remote copy", "copies.json", "make copies", a_copy),
    Feature("thin room", "cases/campus.json", "farwrite case campus", thin_room),
    Feature("moving a copy that leads", "migrations.json", "make migrations", a_migration),
    Feature("moving both copies behind a router", "migrations.json", "make migrations", a_group_move),
    Feature("bringing a copy up to date", "migrations.json", "make migrations", a_resync),
    Feature("making a lost node's copies anew", "nodes.json", "make nodes", a_lost_node),
    Feature("failover", "drills/primary-killed.json", "farwrite drill primary-killed", a_failover),
)


def table(results: Path = RESULTS) -> str:
    """The whole table."""
    return "\n".join([HEAD, "|---|---|---|", *(row_of(one, results) for one in FEATURES)])


def row_of(feature: Feature, results: Path) -> str:
    """A row; the file is a link where there is one."""
    path = found_at(results / feature.recorded)
    if not path.exists():
        return f"| {feature.name} | {NOT_YET} | `{feature.command}` |"
    link = f"[{Path(feature.recorded).stem}](results/{feature.recorded}{'.gz' if path.suffix == '.gz' else ''})"
    return f"| {feature.name} | {feature.told(path)} | `{feature.command}`, {link} |"


def table_in(text: str) -> str:
    """The table that a README has; empty where there is none."""
    lines = text.splitlines()
    if HEAD not in lines:
        return ""
    begin = lines.index(HEAD)
    end = next((at for at in range(begin, len(lines)) if not lines[at].startswith("|")), len(lines))
    return "\n".join(lines[begin:end])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into the README")
    made = table()
    if parser.parse_args().write:
        text = README.read_text()
        write_atomically(README, text.replace(table_in(text), made).encode())
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
