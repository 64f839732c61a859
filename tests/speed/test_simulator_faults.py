"""The tool that plants faults: both forms are in one tree, its table fits the code, and what it recorded holds."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter

import pytest
import simulator_faults as planting

SOURCE = '''"""A module."""
from __future__ import annotations

def sums(count, limit):
    total, seen = 0, [0, 0]
    for number in range(count + 1):
        if number > 3 and number < limit:
            total += number
        seen[number % 2] = total + number
    return max(total, seen[1])
'''
CHANGES = {
    "a condition left out": ("number > 3 and number < limit", "number > 3"),
    "a boundary": ("number > 3 and", "number >= 3 and"),
    "a bound of a loop": ("range(count + 1)", "range(count)"),
    "an operation": ("total += number", "total -= number"),
    "a statement left out": ("        seen[number % 2] = total + number\n", ""),
    "two statements for one": ("            total += number\n", "            total += number\n            total += 1\n"),
    "an index that is written": ("seen[number % 2] =", "seen[(number + 1) % 2] ="),
    "another function": ("max(total, seen[1])", "min(total, seen[1])"),
    "an operand": ("total, seen = 0, [0, 0]", "total, seen = 5, [0, 0]"),
}
ENGINE = ["journal", "journal_kernel", "primary_kernel", "record_kernel", "replica_kernel", "resync_kernel", "secondary_kernel",
          "turn_kernel", "handshake", "ballot", "election"]  # fmt: skip


def results_of(source, number=0):
    """What the functions of such a module answer, with this fault in force."""
    names = {"planted": lambda: number}
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom)]
    exec(compile(tree, "sums", "exec"), names)
    return [names["sums"](count, limit) for count in range(9) for limit in range(9)]


def test_each_fault_is_in_force_alone_and_none_without_its_number():
    changed = [SOURCE.replace(old, new) for old, new in CHANGES.values()]
    both = planting.with_faults(SOURCE, list(enumerate(changed, 1)))
    assert results_of(both) == results_of(SOURCE)
    for number, other in enumerate(changed, 1):
        assert results_of(both, number) == results_of(other) != results_of(SOURCE), list(CHANGES)[number - 1]


def test_the_name_of_a_field_is_known_when_a_kernel_is_compiled():
    source = SOURCE.replace("return max(total, seen[1])", 'return row["one"]')
    both = planting.with_faults(source, [(1, source.replace('row["one"]', 'row["other"]'))])
    assert "row['other'] if planted() == 1 else row['one']" in both


def test_a_fault_whose_code_has_changed_is_refused():
    with pytest.raises(SystemExit, match="has its code 0 times, not once"):
        planting.Fault("old", "engine/ballot", "a line that nobody has written", "").planted()


def test_the_faults_fit_the_code_and_are_over_all_of_the_engine():
    faults = planting.read_faults()
    assert len(faults) >= 40
    assert len({fault.name for fault in faults}) == len(faults)
    modules = Counter(fault.module for fault in faults)
    assert all(modules[f"engine/{name}"] >= 1 for name in ENGINE)
    for module in modules:
        changed = [(number, fault.planted()) for number, fault in enumerate(faults, 1) if fault.module == module]
        copied = planting.with_faults((planting.PACKAGE / f"{module}.py").read_text(), changed)
        assert sorted(map(int, re.findall(r"planted\(\) == (\d+)", copied))) == [number for number, _ in changed]


def test_what_is_recorded_is_of_these_faults_and_at_least_forty_were_found():
    faults = planting.read_faults()
    recorded = {row["name"]: row for row in json.loads(planting.JSON.read_text())["faults"]}
    statuses = Counter(planting.status_of(fault, recorded.get(fault.name)) for fault in faults)
    assert statuses["not run"] == 0, "make simulate FAULTS=1 runs them"
    assert statuses["found"] >= 40
    assert all(row["seed"] is None or row["seed"] < planting.SEEDS for row in recorded.values())
    assert planting.PAGE.read_text() == planting.page(faults, recorded, json.loads(planting.JSON.read_text())["farwrite"])
