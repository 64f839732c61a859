"""The mutation tool: it changes what it says, in the running module and nowhere else, and its table fits the code."""

from __future__ import annotations

import ast
import sys
from functools import lru_cache
from types import ModuleType

import mutants
import pytest

SOURCE = '''
LIMIT = 3
TWICE = 2 * LIMIT

def below(value, limit=LIMIT):
    """Docstrings are left alone."""
    assert value >= 0
    if value < limit and value != 7:
        return [one for one in range(value) if one % 2]
    raise ValueError(f"{value + 1}")

class Box:
    def __init__(self):
        self.count = 0

    def add(self, more=1):
        self.count += more
        return max(self.count, TWICE)
'''


@pytest.fixture
def toy(tmp_path):
    """A module that was loaded from SOURCE."""
    module = ModuleType("toy")
    module.__file__ = str(tmp_path / "toy.py")
    exec(compile(SOURCE, module.__file__, "exec"), module.__dict__)
    sys.modules["toy"] = module
    yield module
    del sys.modules["toy"]


def made():
    tree = ast.parse(SOURCE)
    return tree, {f"{one.function}: {one.mutation}": one for one in mutants.mutants_of("toy", tree, [])}


def changed(toy, key):
    """Put a mutant into the module."""
    tree, found = made()
    found[key].apply()
    mutants.exchange(toy, tree, found[key].function, found[key].mutation.split(":")[0])


def test_every_kind_of_change_is_made_and_none_of_texts_asserts_and_sentences():
    _, found = made()
    assert {
        "below: value < limit -> value <= limit", "below: value < limit -> value >= limit", "below: value != 7 -> value == 7",
        "below: value < limit and value != 7 -> value < limit or value != 7",
        "below: value < limit and value != 7 -> value < limit", "below: 7 -> 8", "below: 7 -> 6", "below: one % 2 -> (dropped)",
        "below: one % 2 -> one // 2", "below: return [one for one in range(value) if one % 2] -> None",
        "below: raise ValueError(f'{value + 1}') -> (dropped)", "Box.add: self.count += more -> (dropped)",
        "Box.add: self.count += more -> self.count -= more", "Box.add: max(self.count, TWICE) -> min(self.count, TWICE)",
        "Box.add: default 1 -> 2", "Box.__init__: self.count = 0 -> (dropped)", "<module>: LIMIT: 3 -> 4",
        "<module>: TWICE: 2 * LIMIT -> 2 / LIMIT",
    } <= found.keys()  # fmt: skip
    assert not any("assert" in key or "value + 1 " in key or "value >= 0" in key for key in found)
    assert len(found) == len({id(one) for one in found.values()})
    assert {one.function for one in mutants.mutants_of("toy", ast.parse(SOURCE), ["below", "Box.*"])} == {"<module>"}


def test_a_changed_function_is_changed_wherever_it_was_imported(toy):
    below = toy.below
    assert below(2) == [1]
    changed(toy, "below: value < limit -> value >= limit")
    assert below(5) == [1, 3]
    with pytest.raises(ValueError):
        below(2)


def test_methods_defaults_and_caches_are_changed(toy):
    toy.cached = lru_cache(toy.below)
    assert toy.cached(2) == [1]
    mutants.forget(toy)
    changed(toy, "below: one % 2 -> (dropped)")
    assert toy.cached(2) == [0, 1]
    box = toy.Box()
    changed(toy, "Box.add: default 1 -> 2")
    box.add()
    assert box.count == 2


def test_a_constant_is_changed_with_what_is_made_of_it(toy):
    other = ModuleType("other")
    other.LIMIT = toy.LIMIT
    sys.modules["other"] = other
    try:
        changed(toy, "<module>: LIMIT: 3 -> 4")
        assert (toy.LIMIT, toy.TWICE, other.LIMIT) == (4, 8, 4)
        assert toy.below(3) == [1]
    finally:
        del sys.modules["other"]


def test_a_kernel_is_interpreted_wherever_python_calls_it():
    from farwrite.targets import load_loop_kernel

    kernels = {name for name, value in vars(load_loop_kernel).items() if hasattr(value, "py_func")}
    assert {"slice_of", "lateness"} <= kernels
    assert mutants.function_at(load_loop_kernel, "slice_of") is load_loop_kernel.slice_of.py_func
    assert mutants.function_at(load_loop_kernel, "none_such") is None


def test_the_table_names_modules_tests_and_faults_that_there_are():
    table = mutants.read_table()
    subjects = mutants.subjects_of(table)
    for subject in subjects:
        assert subject.path.exists() and all((mutants.TESTS / name).exists() for name in subject.tests), subject.name
    faults = [task for subject in subjects for task in mutants.fault_tasks(table, subject)]
    assert len(faults) == len(table["fault"]) >= 11
    assert {item["module"] for item in table.get("survivor", [])} <= {subject.name for subject in subjects}
    assert all(item["why"] and item["kind"] in mutants.KINDS for item in table.get("survivor", []))


def test_what_was_run_counts_until_its_function_or_what_a_survivor_depends_on_changes():
    task = mutants.Task("", "", lambda: ast.parse(""), row={"source": "a", "code": "c", "tests_digest": "b"})
    assert not mutants.still_true(None, task)
    for changed, status, expected in (
        ("", "survived", True), ("source", "survived", False), ("tests_digest", "survived", False),
        ("code", "killed", False), ("source", "killed", True), ("tests_digest", "killed", True),
    ):  # fmt: skip
        row = {**task.row, "status": status} | ({changed: "x"} if changed else {})
        assert mutants.still_true(row, task) is expected, (changed, status)
        assert mutants.still_true({**row, "fault": "named"}, task) is (changed not in ("source", "tests_digest"))
