"""Faults planted in the engine, each of which the simulator should find: in how many seeds it does.

    tests/speed/simulator_faults.py                        all faults that are not recorded yet or were not found, two at once
    tests/speed/simulator_faults.py --fault 'ballot*'      those whose name or module is like this, recorded or not
    tests/speed/simulator_faults.py --list                 the faults, without planting any
    tests/speed/simulator_faults.py --show                 the recorded table

`make simulate FAULTS=1` does the first, `make simulate` ends with the last. tests/speed/simulator_faults.toml has the faults:
`old` stands exactly once in a module below bench/farwrite, `new` takes its place.

Kernels are compiled, and to compile the engine takes minutes. So all faults are planted at once in a copy of the package, each
behind a switch that its machine code looks at (mutant schemata; Untch, Offutt, Harrold, ISSTA 1993), and the copy is compiled
once. One process warms it up; for each fault a fork of that process turns one switch on and tells stories from seed 0 on.
A loop that never ends, or ends the process, is found as well: a search would stand still, or fail, at that seed.
Recorded results (results/simulator-faults.json and .md) count as long as the module's text and the fault are the same.
"""

from __future__ import annotations

import argparse
import ast
import copy
import fnmatch
import hashlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bench" / "farwrite"
TABLE = Path(__file__).with_suffix(".toml")
JSON, PAGE = ROOT / "results" / "simulator-faults.json", ROOT / "results" / "simulator-faults.md"
COPY = ROOT / ".venv" / "planted"  # the package with all faults in it
SEEDS = 3000
QUICK_SEEDS = 300  # Of every fault first: most are found there, and those that are not take nearly all of the time.
STILL_S = 60.0  # Without a story's end for so long, a loop never ends; the longest story takes less than a second.
STOPPED_S = 2.0  # Without a look of ours for so long, we were stopped ourselves, and so were those that we look at.
LENGTH_MAX = 110  # Of the sentence by which a fault was found, in the page.
AT_ONCE = 2

SWITCH = '''"""Which of the faults in this copy of the package is in force; tests/speed/simulator_faults.py writes it."""

import ctypes
import mmap

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .base.jit import kernel

ADDRESS = 0x200000000000  # A page of our own: machine code in the cache looks there, whichever process runs it.
FIXED_NOREPLACE = 0x100000

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | FIXED_NOREPLACE
if libc.mmap(ADDRESS, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != ADDRESS:
    raise OSError(ctypes.get_errno(), "the page of the switch is taken")
NUMBER = ctypes.c_int64.from_address(ADDRESS)


@intrinsic
def number_there(typing_context):
    def generate(context, builder, signature, args):
        word = ir.IntType(64)
        return builder.load(builder.inttoptr(ir.Constant(word, ADDRESS), word.as_pointer()))

    return types.int64(), generate


@kernel()
def planted():
    """The number of the fault in force, 0 for none."""
    return number_there()
'''


# Faults


@dataclass(frozen=True)
class Fault:
    """One change of the engine. `why`, when it is given, is the argument that no story can tell it apart."""

    name: str
    module: str  # below bench/farwrite, without .py
    old: str
    new: str
    why: str = ""

    @property
    def path(self) -> Path:
        return PACKAGE / f"{self.module}.py"

    @property
    def digest(self) -> str:
        """Of the module and of this change."""
        return hashlib.blake2b(f"{self.path.read_text()}\0{self.old}\0{self.new}".encode(), digest_size=8).hexdigest()

    def planted(self) -> str:
        """The module's text with this fault; SystemExit when the code has changed, so that it tests nothing any more."""
        text = self.path.read_text()
        if text.count(self.old) != 1:
            raise SystemExit(
                f'fault "{self.name}": {self.module} has its code {text.count(self.old)} times, not once. '
                f"Write it anew in {TABLE.relative_to(ROOT)}."
            )
        return text.replace(self.old, self.new)

    def line(self) -> int:
        """Where it is."""
        text = self.path.read_text()
        return text[: text.index(self.old)].count("\n") + 1


def read_faults() -> list[Fault]:
    """All faults, in the order of the table."""
    with TABLE.open("rb") as file:
        return [Fault(**item) for item in tomllib.load(file)["fault"]]


# All faults in one tree

LinkDirection = tuple[tuple[str, int | None], ...]  # (field, index in it) each


@dataclass
class Place:
    """A field of the tree in which a fault differs, and what it has there."""

    path: LinkDirection  # from the module
    begin: int | None  # of the statements that differ, None for one expression
    end: int
    new: Any = field(repr=False)
    number: int = 0


class UnplaceableError(Exception):
    """This node cannot hold both forms: its parent must."""


def difference(old: ast.AST, new: ast.AST, path: LinkDirection = ()) -> Place:
    """The smallest expression, or else the fewest statements, in which two trees differ."""
    names = [name for name in old._fields if not same(getattr(old, name, None), getattr(new, name, None))]
    if len(names) != 1:
        raise UnplaceableError
    name = names[0]
    ours, theirs = getattr(old, name), getattr(new, name)
    if not isinstance(ours, list):
        return difference_of_one(ours, theirs, (*path, (name, None)))
    indices = [index for index, pair in enumerate(zip(ours, theirs, strict=False)) if not same(*pair)]
    if len(ours) == len(theirs) and len(indices) == 1:
        try:
            return difference_of_one(ours[indices[0]], theirs[indices[0]], (*path, (name, indices[0])))
        except UnplaceableError:
            pass
    if name not in ("body", "orelse", "finalbody"):
        raise UnplaceableError
    begin, end = ends(ours, theirs)
    return Place((*path, (name, None)), begin, len(ours) - end, theirs[begin : len(theirs) - end])


def difference_of_one(old: Any, new: Any, path: LinkDirection) -> Place:
    """difference() of two nodes that stand in the same place."""
    if type(old) is type(new) and isinstance(old, ast.AST):
        try:
            return difference(old, new, path)
        except UnplaceableError:
            pass
    # Which function is called, what a loop goes over, and a field's name must be known when a kernel is compiled.
    is_field = path[-1][0] == "slice" and isinstance(old, ast.Constant) and isinstance(old.value, str)
    if not (is_loadable(old) and is_loadable(new)) or path[-1][0] in ("func", "iter") or is_field:
        raise UnplaceableError
    return Place(path, None, 0, new)


def same(one: Any, other: Any) -> bool:
    """Whether two pieces of trees are the same code."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, ast.AST) and isinstance(other, ast.AST):
        return ast.dump(one) == ast.dump(other)
    return type(one) is type(other) and one == other


def is_loadable(node: Any) -> bool:
    """Whether an expression is one whose value is taken, so that a condition may choose between two."""
    is_value = isinstance(node, ast.expr) and not isinstance(node, ast.Starred)
    return is_value and isinstance(getattr(node, "ctx", ast.Load()), ast.Load)


def ends(ours: list[ast.stmt], theirs: list[ast.stmt]) -> tuple[int, int]:
    """How many statements two bodies have in common at their beginning and at their end."""
    shortest = min(len(ours), len(theirs))
    begin = 0
    while begin < shortest and same(ours[begin], theirs[begin]):
        begin += 1
    end = 0
    while end < shortest - begin and same(ours[-1 - end], theirs[-1 - end]):
        end += 1
    return begin, end


def chosen(number: int) -> ast.expr:
    """`planted() == number`."""
    return ast.Compare(ast.Call(ast.Name("planted", ast.Load()), [], []), [ast.Eq()], [ast.Constant(number)])


def with_faults(text: str, changed: list[tuple[int, str]]) -> str:
    """A module's code with all of these (number, text with the fault), each in force when the switch has its number."""
    tree, before = ast.parse(text), ast.parse(text)
    places = []
    for number, other in changed:
        place = difference(before, ast.parse(other))
        place.number = number
        places.append(place)
    # The innermost first, and of a body's statements the last: what is put in elsewhere then moves nothing.
    for place in sorted(places, key=lambda one: (len(one.path), one.begin or 0), reverse=True):
        put(tree, place)
    begin = 1 + next(index for index, node in enumerate(tree.body)
                     if isinstance(node, ast.ImportFrom) and node.module == "__future__")  # fmt: skip
    tree.body.insert(begin, ast.ImportFrom("planted", [ast.alias("planted")], 2))
    return ast.unparse(ast.fix_missing_locations(tree))


def put(tree: ast.Module, place: Place) -> None:
    """Have the tree hold both forms at this place."""
    node: Any = tree
    for name, index in place.path[:-1]:
        node = getattr(node, name) if index is None else getattr(node, name)[index]
    name, index = place.path[-1]
    if place.begin is None:
        old = getattr(node, name) if index is None else getattr(node, name)[index]
        both: Any = ast.IfExp(chosen(place.number), copy.deepcopy(place.new), old)
        if index is None:
            setattr(node, name, both)
        else:
            getattr(node, name)[index] = both
        return
    body = getattr(node, name)
    both = ast.If(chosen(place.number), copy.deepcopy(place.new) or [ast.Pass()], body[place.begin : place.end] or [ast.Pass()])
    body[place.begin : place.end] = [both]


# The copy


def make_copy(faults: list[Fault]) -> Path:
    """Write the package with all faults in it; the directory to import it from."""
    fresh = COPY.with_name("planted.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(PACKAGE, fresh / "farwrite", ignore=shutil.ignore_patterns("__pycache__"))
    (fresh / "farwrite" / "planted.py").write_text(SWITCH)
    for module in sorted({fault.module for fault in faults}):
        changed = [(number, fault.planted()) for number, fault in enumerate(faults, 1) if fault.module == module]
        (fresh / "farwrite" / f"{module}.py").write_text(with_faults((PACKAGE / f"{module}.py").read_text(), changed))
    shutil.rmtree(COPY, ignore_errors=True)
    fresh.rename(COPY)
    return COPY


# Stories, in the process that has the copy


def serve(asked: list[tuple[int, str]], first: int, count: int, at_once: int) -> None:
    """Warm the copy up, then tell stories with each of these faults; one line of JSON for each on stdout."""
    from farwrite.planted import NUMBER

    from farwrite.base.host.parent_death import die_with
    from farwrite.engine.simulate.story import tell

    die_with(os.getppid())
    NUMBER.value = 0
    for seed in range(first, first + 12):
        told = tell(seed)
        if told.broken:
            raise SystemExit(f"seed {seed} breaks a promise without a fault: {told.broken}")
    print(json.dumps({"ready": True}), flush=True)
    waiting, running, looked_s = list(asked), {}, time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, name = waiting.pop(0)
                board = mmap.mmap(-1, mmap.PAGESIZE)  # the seed that is told, then the sentence
                running[fork_one(number, board, first, count)] = [name, board, time.monotonic(), -1, time.monotonic()]
            time.sleep(0.05)
            stopped_s, looked_s = time.monotonic() - looked_s, time.monotonic()
            for process in list(running):
                if stopped_s > STOPPED_S:
                    running[process][2] += stopped_s
                name, board, since_s, seed_before, begun_s = running[process]
                seed = int.from_bytes(board[:8], "little")
                if seed != seed_before:
                    running[process][2:4] = [time.monotonic(), seed]
                ended, status = os.waitpid(process, os.WNOHANG)
                by = ""
                if not ended and time.monotonic() - since_s > STILL_S:
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
                    ended, by = process, "a loop never ends"
                if not ended:
                    continue
                del running[process]
                if os.WIFSIGNALED(status) and not by:
                    by = f"the process ends by {signal.Signals(os.WTERMSIG(status)).name}"
                by = by or board[16 : 16 + int.from_bytes(board[8:16], "little")].decode(errors="replace")
                row = {"name": name, "seed": seed if by else None, "by": by, "seeds": count,
                       "seconds": round(time.monotonic() - begun_s, 1)}  # fmt: skip
                print(json.dumps(row), flush=True)
    finally:
        for process in running:
            os.kill(process, signal.SIGKILL)


def fork_one(number: int, board: mmap.mmap, first: int, count: int) -> int:
    """A process that tells stories with this fault until one breaks a promise; its number."""
    from farwrite.planted import NUMBER

    from farwrite.base.host.parent_death import die_with
    from farwrite.engine.simulate.story import tell

    parent = os.getpid()
    process = os.fork()
    if process:
        return process
    die_with(parent)
    NUMBER.value = number
    for seed in range(first, first + count):
        board[:8] = seed.to_bytes(8, "little")
        try:
            broken = tell(seed).broken
        except Exception as failure:  # Of the engine's own Python, or of what it has left to the simulator's.
            broken = f"{type(failure).__name__}: {failure}"
        if broken:
            said = broken.encode()[: mmap.PAGESIZE - 16]
            board[16 : 16 + len(said)] = said
            board[8:16] = len(said).to_bytes(8, "little")
            break
    os._exit(0)


def in_rounds(faults: list[Fault], planted: list[Fault], first: int, count: int, at_once: int) -> Iterator[dict[str, Any]]:
    """What was found of each fault, after a few seeds of each and then after the rest of those that are still open."""
    place, left = make_copy(faults), planted
    for begin, end in ((0, min(QUICK_SEEDS, count)), (QUICK_SEEDS, count)):
        rows = []
        if begin < end and left:
            for row in tell_all(place, faults, left, first + begin, end - begin, at_once):
                rows.append({**row, "seeds": end})
                yield rows[-1]
        found = {row["name"] for row in rows if row["seed"] is not None}
        left = [fault for fault in left if fault.name not in found]


def tell_all(
    place: Path, faults: list[Fault], chosen_faults: list[Fault], first: int, count: int, at_once: int
) -> Iterator[dict[str, Any]]:
    """What was found of each fault in the copy, as it is found."""
    asked = [(faults.index(fault) + 1, fault.name) for fault in chosen_faults]
    command = [sys.executable, __file__, "--serve", json.dumps(asked), "--from", str(first), "--seeds", str(count),
               "--at-once", str(at_once)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(place)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                row = json.loads(line)
                if "name" in row:
                    yield row
        finally:
            if running.poll() is None:
                running.terminate()
    if running.returncode:
        raise SystemExit(f"the process that has the copy ended with {running.returncode}")


# Results


def read_results() -> dict[str, dict[str, Any]]:
    """What is recorded, by fault."""
    return {row["name"]: row for row in json.loads(JSON.read_text())["faults"]} if JSON.exists() else {}


def status_of(fault: Fault, row: dict[str, Any] | None) -> str:
    """One of found, equivalent, open, not run, stale."""
    if row is None:
        return "not run"
    if row["seed"] is not None:
        return "found"
    return "equivalent" if fault.why else "open"


def is_to_be_told(fault: Fault, row: dict[str, Any] | None, seeds: int) -> bool:
    """Whether what is recorded of a fault is of other code, or of fewer seeds than are asked for."""
    return row is None or row["digest"] != fault.digest or (row["seed"] is None and row["seeds"] < seeds)


def write_results(faults: list[Fault], results: dict[str, dict[str, Any]]) -> None:
    """Write both files; faults that are no longer in the table are dropped."""
    from farwrite import __version__

    rows = [{**results[fault.name], "module": fault.module, "line": fault.line(), "why": fault.why}
            for fault in faults if fault.name in results]  # fmt: skip
    JSON.write_text(json.dumps({"farwrite": __version__, "faults": rows}, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(faults, {row["name"]: row for row in rows}, __version__))


def summary(faults: list[Fault], results: dict[str, dict[str, Any]]) -> str:
    """How many were found, in a sentence."""
    statuses = [status_of(fault, results.get(fault.name)) for fault in faults]
    parts = [f"{statuses.count(status)} {status}" for status in ("found", "equivalent", "open", "not run") if status in statuses]
    return f"{len(faults)} faults planted: {', '.join(parts)}."


def page(faults: list[Fault], results: dict[str, dict[str, Any]], version: str) -> str:
    """The results as a page."""
    lines = [
        "# Faults planted for the simulator", "",
        f"Made by `make simulate FAULTS=1`, farwrite {version}. Each fault is one change of the engine; the simulator tells "
        f"stories from seed 0 on until one breaks a promise, {SEEDS:,} at most. *Equivalent*: no story can tell it apart, and "
        "why. *Open*: not found in so many seeds.",
        "", summary(faults, results), "", "| fault | module | found | by |", "|---|---|---|---|",
    ]  # fmt: skip
    for fault in faults:
        row = results.get(fault.name)
        status = status_of(fault, row)
        found = f"seed {row['seed']}" if row and status == "found" else status
        found = f"**open** ({row['seeds']:,} seeds)" if row and status == "open" else found
        by = fault.why if status == "equivalent" else row["by"] if row else ""
        by = by if len(by) <= LENGTH_MAX or status == "equivalent" else by[: LENGTH_MAX - 3] + "..."
        lines.append(f"| {fault.name} | {fault.module} | {found} | {by.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def table_text(faults: list[Fault], results: dict[str, dict[str, Any]]) -> str:
    """The results for a terminal."""
    lines = [summary(faults, results)]
    for fault in faults:
        row = results.get(fault.name)
        status = status_of(fault, row)
        where = f"in seed {row['seed']}" if row and status == "found" else status
        lines.append(f"  {where:12} {fault.module.removeprefix('engine/')}: {fault.name}")
    return "\n".join(lines)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--fault", action="append", default=[], help="only those whose name or module is like this pattern")
    words.add_argument("--seeds", type=int, default=SEEDS, help="of each fault, at most")
    words.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    words.add_argument("--at-once", type=int, default=min(AT_ONCE, len(os.sched_getaffinity(0))), help="faults at once")
    words.add_argument("--again", action="store_true", help="also those whose result is known")
    words.add_argument("--list", action="store_true", help="the faults, without planting any")
    words.add_argument("--show", action="store_true", help="the recorded table")
    words.add_argument("--serve", help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.serve:
        serve([tuple(item) for item in json.loads(asked.serve)], asked.first, asked.seeds, asked.at_once)
        return 0
    faults, results = read_faults(), read_results()
    if asked.show or asked.list:
        print(table_text(faults, results))
        return 0
    planted = [
        fault for fault in faults
        if any(fnmatch.fnmatch(text, pattern) for pattern in asked.fault for text in (fault.name, fault.module))
        or (not asked.fault and (asked.again or is_to_be_told(fault, results.get(fault.name), asked.seeds)))
    ]  # fmt: skip
    if not planted:
        print(summary(faults, results))
        return 0
    begin_s = time.monotonic()
    for row in in_rounds(faults, planted, asked.first, asked.seeds, asked.at_once):
        fault = next(one for one in planted if one.name == row["name"])
        results[fault.name] = {**row, "digest": fault.digest}
        write_results(faults, results)
        status = status_of(fault, row)
        found = f", in seed {row['seed']}: {row['by']}" if status == "found" else f" after {row['seeds']} seeds"
        print(f"{status:10} {fault.module}: {fault.name}{found}", file=sys.stderr, flush=True)
    print(table_text(faults, results))
    print(f"{time.monotonic() - begin_s:.0f} s", file=sys.stderr)
    return int(any(status_of(fault, results.get(fault.name)) == "open" for fault in faults))


if __name__ == "__main__":
    sys.exit(main())
