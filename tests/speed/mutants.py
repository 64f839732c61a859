"""Whether the tests hold the statistics: small changes to the code (mutants), each of which some test should notice.

    tests/speed/mutants.py                                         all modules, what is known already left out
    tests/speed/mutants.py --module analysis/estimate --sample 50  fifty mutants of one module, drawn with --seed
    tests/speed/mutants.py --faults                                only the named faults
    tests/speed/mutants.py --list                                  how many mutants there are, without running them

`make mutants` does the first. No file is changed: pytest collects the tests of a module once, and for each mutant a fork of that
process exchanges the code of the mutated function and runs the tests that call it, the quickest first, until one fails. Kernels
are mutated as plain Python: every kernel of the module is interpreted, what it calls in other modules stays compiled. (mutmut and
cosmic-ray do not serve: the one leaves every decorated function alone, which all kernels are, the other starts an interpreter
for each mutant, which takes as long as two hundred of these forks.) What a test starts as a command of its own is not mutated.

tests/speed/mutants.toml has the modules with their tests, the named faults, and why each survivor changes no verdict, by module,
function and mutation. What was run is kept in .venv/mutants: a kill counts as long as the function is as it was, all else as long
as the module and the tests are; results/mutants.json and .md are written from it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import ctypes
import fnmatch
import gc
import hashlib
import importlib
import itertools
import json
import os
import pickle
import random
import re
import resource
import select
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / "bench" / "farwrite", ROOT / "tests"
TABLE = Path(__file__).with_suffix(".toml")
KEPT = ROOT / ".venv" / "mutants"  # what was run, and what tests do without a mutant
JOURNAL = KEPT / "journal.jsonl"
KEPT_FORMAT = 5
JSON, PAGE = ROOT / "results" / "mutants.json", ROOT / "results" / "mutants.md"
MODULE_LEVEL = "<module>"
GRACE_S, SLOWER = 3.0, 5.0  # Of processor time: a test of a mutant may take so much, and so many times what it takes without one.
ASLEEP = 20  # So many times that by the clock: a process that waits for what never comes.
MEMORY_BYTES = 6 << 30  # Of address space beyond what the tests have without a mutant: a mutant may collect without end.
DROPPED = "(dropped)"
SAID_TWICE = ("strict", "errstate", "divide", "invalid", "over")  # Keywords that only watch what is true anyway.
KINDS = {
    "equivalent": "no input tells it apart",
    "boundary": "only where two measured numbers are equal to the last bit",
    "words": "what is printed beside a verdict",
    "speed": "the same result, sooner or later",
    "accuracy": "moves a number by much less than its interval",
    "guard": "of what callers never hand over",
}  # Of survivors: why they change no verdict.
LEAST_ABLE = 0.3  # Of the tests, without a mutant: of a kernel's some cannot do with an interpreted one.
ARGUED_SHARE = 0.2  # Of the tests' time, for a mutant whose survival is argued already.
KILLER_CHARACTERS = 150  # Of a test's name on the page: parameters may be whole estimates.
WARM_FROM = 20  # Mutants, from which on it pays to call helpers before the fork.
DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG


# Mutations


@dataclass(frozen=True, eq=False)
class Mutant:
    """One change of one place: `new` takes the place of what stands in the field of `parent`."""

    module: str
    function: str  # as it is qualified; MODULE_LEVEL for constants
    mutation: str  # "rounds - 1 -> rounds + 1", with "#2" for the second alike
    line: int
    parent: ast.AST = field(repr=False)
    name: str = field(repr=False)
    index: int | None = field(repr=False)
    new: ast.AST | None = field(repr=False)

    @property
    def key(self) -> str:
        return f"{self.module} {self.function}: {self.mutation}"

    def apply(self) -> None:
        """Change the tree."""
        if self.index is None:
            setattr(self.parent, self.name, self.new)
        elif self.new is None:
            del getattr(self.parent, self.name)[self.index]
        else:
            getattr(self.parent, self.name)[self.index] = self.new


COMPARED: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
REPLACED: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor", "minimum": "maximum",
    "maximum": "minimum", "nanmin": "nanmax", "nanmax": "nanmin", "argmin": "argmax", "argmax": "argmin", "triu": "tril",
    "tril": "triu", "sorted": "list", "isnan": "isfinite", "log1p": "log", "expm1": "exp",
}  # fmt: skip


def mutants_of(module: str, tree: ast.Module, words: list[str]) -> list[Mutant]:
    """All mutants of a module. `words`: patterns of functions that only make sentences, which are left alone."""
    found: list[Mutant] = []
    seen: Counter[tuple[str, str]] = Counter()

    def add(function: str, line: int, text: str, parent: ast.AST, name: str, index: int | None, new: ast.AST | None) -> None:
        seen[function, text] += 1
        again = seen[function, text]
        found.append(Mutant(module, function, text if again == 1 else f"{text} #{again}", line, parent, name, index, new))

    for function, node in functions_of(tree):
        if function == MODULE_LEVEL:
            assert isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            assert isinstance(target, ast.Name)
            for parent, name, index, old, new in changes_in(node, "value", None, node.value):
                add(function, node.lineno, f"{target.id}: {said(old)} -> {said(new)}", parent, name, index, new)
            continue
        assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if any(fnmatch.fnmatch(function, pattern) for pattern in words):
            continue
        for place, default in [*enumerate(node.args.defaults), *enumerate(node.args.kw_defaults)]:
            kind = "defaults" if place < len(node.args.defaults) and node.args.defaults[place] is default else "kw_defaults"
            if default is not None:
                for parent, name, index, old, new in changes_in(node.args, kind, place, default):
                    add(function, node.lineno, f"default {said(old)} -> {said(new)}", parent, name, index, new)
        for parent, name, index, old, new in changes_of_body(node, "body", node.body):
            line = getattr(old, "lineno", node.lineno)
            add(function, line, f"{said(old)} -> {said(new)}", parent, name, index, new)
    return found


def functions_of(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """(qualified name, definition) of functions and methods; (MODULE_LEVEL, assignment) of constants."""
    def inside(body: list[ast.stmt], before: str) -> Iterator[tuple[str, ast.AST]]:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{before}{node.name}", node
            elif isinstance(node, ast.ClassDef):
                yield from inside(node.body, f"{before}{node.name}.")
            elif not before and isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if len(targets) == 1 and isinstance(targets[0], ast.Name):
                    yield MODULE_LEVEL, node

    yield from inside(tree.body, "")


# (parent, field, index, what stands there, what takes its place)
Change = tuple[ast.AST, str, int | None, ast.AST, ast.AST | None]


def changes_of_body(parent: ast.AST, name: str, body: list[ast.stmt]) -> Iterator[Change]:
    """Changes of statements and of what is in them."""
    for index, node in enumerate(body):
        if isinstance(node, (ast.Assert, ast.Import, ast.ImportFrom, ast.Pass, ast.Global, ast.Nonlocal)):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if droppable(node):
            yield parent, name, index, node, ast.copy_location(ast.Pass(), node)
        if isinstance(node, ast.Raise):
            continue
        if isinstance(node, ast.Return):
            if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
                yield node, "value", None, node, ast.copy_location(ast.Constant(None), node)
                yield from changes_in(node, "value", None, node.value)
            continue
        if isinstance(node, ast.AugAssign) and type(node.op) in REPLACED:
            new = ast.AugAssign(node.target, REPLACED[type(node.op)](), node.value)
            yield parent, name, index, node, ast.copy_location(new, node)
        if isinstance(node, (ast.If, ast.While)) and not isinstance(node.test, (ast.Compare, ast.BoolOp)):
            yield from negated(node, "test", None, node.test)
        for inner, value in ast.iter_fields(node):
            if inner in ("annotation", "returns", "decorator_list", "args", "targets", "target", "op", "name", "type_comment"):
                if inner in ("targets", "target") and not isinstance(node, ast.For):
                    for place, one in enumerate(value if isinstance(value, list) else [value]):
                        yield from changes_in(node, inner, place if isinstance(value, list) else None, one)
                continue
            if isinstance(value, list) and value and isinstance(value[0], (ast.stmt,)):
                yield from changes_of_body(node, inner, value)
            elif isinstance(value, list):
                for place, one in enumerate(value):
                    if isinstance(one, (ast.ExceptHandler, ast.match_case)):
                        yield from changes_of_body(one, "body", one.body)
                    elif isinstance(one, ast.withitem):
                        yield from changes_in(one, "context_expr", None, one.context_expr)
                    elif isinstance(one, ast.expr):
                        yield from changes_in(node, inner, place, one)
            elif isinstance(value, ast.expr):
                yield from changes_in(node, inner, None, value)


def droppable(node: ast.stmt) -> bool:
    """Whether a function can do without a statement and still run."""
    if isinstance(node, ast.Assign):
        return all(isinstance(target, (ast.Subscript, ast.Attribute)) for target in node.targets)
    return isinstance(node, (ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Await))
    )


def negated(parent: ast.AST, name: str, index: int | None, node: ast.expr) -> Iterator[Change]:
    """The opposite of a condition."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return  # Its `not` is dropped anyway.
    yield parent, name, index, node, ast.copy_location(ast.UnaryOp(ast.Not(), node), node)


def changes_in(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> Iterator[Change]:
    """Changes of an expression and of what is in it."""
    def instead(new: ast.AST) -> Change:
        return parent, name, index, node, ast.copy_location(new, node)

    if isinstance(node, (ast.JoinedStr, ast.Lambda)):
        if isinstance(node, ast.Lambda):
            yield from changes_in(node, "body", None, node.body)
        return
    if isinstance(node, ast.Constant):
        yield from map(instead, map(ast.Constant, others_of(node.value)))
        return
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            for other in COMPARED[type(op)]:
                yield instead(ast.Compare(node.left, [*node.ops[:place], other(), *node.ops[place + 1 :]], node.comparators))
    elif isinstance(node, ast.BoolOp):
        yield instead(ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))
        for place in range(len(node.values)):
            rest = [*node.values[:place], *node.values[place + 1 :]]
            yield instead(rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest))
    elif isinstance(node, ast.BinOp) and type(node.op) in REPLACED and not any(map(is_text, (node.left, node.right))):
        yield instead(ast.BinOp(node.left, REPLACED[type(node.op)](), node.right))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        yield instead(node.operand)
    elif isinstance(node, ast.IfExp) and not isinstance(node.test, (ast.Compare, ast.BoolOp)):
        yield from negated(node, "test", None, node.test)
    elif isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in NAMES:
            func: ast.expr = ast.Name(NAMES[called], ast.Load())
            if isinstance(node.func, ast.Attribute):
                func = ast.Attribute(node.func.value, NAMES[called], ast.Load())
            yield instead(ast.Call(func, node.args, node.keywords))
        if called == "abs" and len(node.args) == 1:
            yield instead(node.args[0])
        if called and not called.lstrip("_")[0].isupper():
            for place, keyword in enumerate(node.keywords):
                if keyword.arg not in SAID_TWICE:
                    yield instead(ast.Call(node.func, node.args, [*node.keywords[:place], *node.keywords[place + 1 :]]))
    for inner, value in ast.iter_fields(node):
        if isinstance(value, ast.expr) and not (inner == "func" and isinstance(value, ast.Name)):
            yield from changes_in(node, inner, None, value)
        elif isinstance(value, list):
            for place, one in enumerate(value):
                if isinstance(one, ast.comprehension):
                    for which, condition in enumerate(one.ifs):
                        yield one, "ifs", which, condition, None
                        if not isinstance(condition, (ast.Compare, ast.BoolOp)):
                            yield from negated(one, "ifs", which, condition)
                        yield from changes_in(one, "ifs", which, condition)
                    yield from changes_in(one, "iter", None, one.iter)
                elif isinstance(one, ast.keyword) and one.arg not in SAID_TWICE:
                    yield from changes_in(one, "value", None, one.value)
                elif isinstance(one, ast.expr):
                    yield from changes_in(node, inner, place, one)


def others_of(value: Any) -> list[Any]:
    """What a constant becomes: one more and one less, half as much again, the opposite. Texts stay."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [value * 1.5] if value else [1.0]
    return []


def is_text(node: ast.AST) -> bool:
    """Whether an operand makes the operation one on text."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def said(node: ast.AST | None) -> str:
    """A piece of code in one line."""
    if node is None or isinstance(node, ast.Pass):
        return DROPPED
    return " ".join(ast.unparse(node).split())


# Exchanging code


def unwrapped(found: Any) -> Any:
    """The plain function in a kernel, a cache, a property or a method."""
    while not isinstance(found, FunctionType):
        for inner in ("py_func", "__wrapped__", "fget", "__func__", "func"):
            if getattr(found, inner, None) is not None:
                found = getattr(found, inner)
                break
        else:
            return None
    while hasattr(found, "__wrapped__"):  # contextmanager and the like
        found = found.__wrapped__
    return found


def function_at(module: ModuleType, qualified: str) -> FunctionType | None:
    """A function of a module by its qualified name."""
    found: Any = module
    for word in qualified.split("."):
        found = vars(found).get(word)
        if found is None:
            return None
    return unwrapped(found)


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """All code in a module's or a function's code, itself first."""
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from codes_in(one)


class UnchangeableError(Exception):
    """A place whose change cannot be put into the running module."""


def exchange(module: ModuleType, tree: ast.Module, function: str, target: str = "") -> None:
    """Put the code of a function in a changed tree, or the value of a constant, into the module that is loaded."""
    if function == MODULE_LEVEL:
        exchange_constant(module, tree, target)
        return
    ast.fix_missing_locations(tree)
    path = str(module.__file__)
    loaded = function_at(module, function)
    codes = [one for one in codes_in(compile(tree, path, "exec")) if one.co_qualname == function]
    if loaded is None or len(codes) != 1 or len(codes[0].co_freevars) != len(loaded.__code__.co_freevars):
        raise UnchangeableError(function)
    loaded.__code__ = codes[0]
    node = next(node for name, node in functions_of(tree) if name == function)
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    if loaded.__defaults__:
        loaded.__defaults__ = tuple(value_of(one, module) for one in node.args.defaults)
    if loaded.__kwdefaults__:
        loaded.__kwdefaults__ = {
            one.arg: value_of(default, module)
            for one, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if default is not None
        }  # fmt: skip


def value_of(node: ast.expr, module: ModuleType) -> Any:
    """An expression in a module."""
    return eval(compile(ast.fix_missing_locations(ast.Expression(node)), str(module.__file__), "eval"), module.__dict__)


def exchange_constant(module: ModuleType, tree: ast.Module, target: str) -> None:
    """Give a constant, and those that are made of it, the value of the changed tree, wherever it was imported."""
    changed: set[str] = set()
    for name, node in functions_of(tree):
        if name == MODULE_LEVEL:
            assert isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
            assigned = node.targets[0] if isinstance(node, ast.Assign) else node.target
            assert isinstance(assigned, ast.Name)
            used = {one.id for one in ast.walk(node.value) if isinstance(one, ast.Name)}
            if assigned.id != target and not used & changed:
                continue
            old, new = vars(module).get(assigned.id), value_of(node.value, module)
            changed.add(assigned.id)
            for other in list(sys.modules.values()):
                if other is not None and vars(other).get(assigned.id, module) is old:
                    setattr(other, assigned.id, new)
        elif isinstance(node, ast.FunctionDef):
            loaded = function_at(module, name)
            used = {one.id for default in node.args.defaults for one in ast.walk(default) if isinstance(one, ast.Name)}
            if loaded is not None and loaded.__defaults__ and used & changed:
                loaded.__defaults__ = tuple(value_of(one, module) for one in node.args.defaults)


def interpret(module: ModuleType) -> None:
    """Let every kernel of a module be its plain function, wherever it is called from Python."""
    import numpy as np

    np.seterr(over="ignore", divide="ignore", invalid="ignore")  # As compiled.
    kernels = {id(one): one.py_func for one in vars(module).values()
               if hasattr(one, "py_func") and one.py_func.__module__ == module.__name__}  # fmt: skip
    for other in list(sys.modules.values()):
        for name, value in list(vars(other).items()) if other is not None and hasattr(other, "__dict__") else ():
            if id(value) in kernels:
                setattr(other, name, kernels[id(value)])


def forget(module: ModuleType) -> None:
    """Empty the caches of a module."""
    for value in list(vars(module).values()):
        if hasattr(value, "cache_clear"):
            value.cache_clear()


# One module


@dataclass(frozen=True)
class Subject:
    """A module, the tests that concern it, and what is known of it."""

    name: str  # "analysis/estimate"
    tests: list[str]  # files, relative to tests/
    warm: list[str]  # helpers whose results no mutant here can change, called before the fork
    words: list[str]

    @property
    def path(self) -> Path:
        return PACKAGE / f"{self.name}.py"

    @property
    def module(self) -> str:
        return "farwrite." + self.name.replace("/", ".")

    @property
    def is_kernel(self) -> bool:
        return self.name.endswith("_kernel")

    def source_digest(self) -> str:
        return digest(self.path.read_text())

    def tests_digest(self) -> str:
        return digest("".join((TESTS / name).read_text() for name in self.tests))


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass
class Task:
    """What one fork has to do: a mutant, or a named fault as changed source."""

    key: str
    function: str
    changed: Callable[[], ast.Module]  # called once, in the fork
    target: str = ""  # the constant, at MODULE_LEVEL
    row: dict[str, Any] = field(default_factory=dict)
    argued: bool = False  # why it may survive is known: a fifth of the tests' time does


@dataclass
class Known:
    """What a test does without a mutant."""

    seconds: float  # of processor time
    functions: set[str]


class RefusedError(Exception):
    """The tests of a module tell nothing of mutants, and why."""


class Plugin:
    """Runs in a process of its own, inside pytest: collects the tests of a module, then forks for every task."""

    def __init__(self, subject: Subject, tasks: list[Task], jobs: int, limit_s: float, said_by: Callable[[dict[str, Any]], None]):
        self.subject, self.tasks, self.jobs, self.limit_s, self.said_by = subject, tasks, jobs, limit_s, said_by
        self.tell = -1  # of a fork, where it says what it does
        self.current = -1

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        self.items = session.items
        if not session.items:
            raise RefusedError(f"no tests were collected for {self.subject.name}")
        if session.testsfailed:
            raise RefusedError(f"the tests of {self.subject.name} cannot be collected")
        self.module = importlib.import_module(self.subject.module)
        known, warm, imports = self.baseline()
        for name in imports:
            importlib.import_module(name)
        self.known = known
        for name, words in warm if len(self.tasks) >= WARM_FROM else ():
            helper, function = name.split(".")
            getattr(importlib.import_module(helper), function)(*words[0], **words[1])
        gc.freeze()  # A collection in a fork would copy what both share.
        running: dict[int, Fork] = {}
        waiting = list(reversed(self.tasks))
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    task = waiting.pop()
                    chosen = self.chosen(task)
                    if not chosen:
                        self.report(task, "unreached", None, 0.0, 0)
                        continue
                    fork = self.fork(task, chosen)
                    running[fork.read] = fork
                for end in self.ended(running):
                    self.report(end.task, end.status, end.killer, end.used_s, len(end.chosen))
        finally:
            for fork in running.values():
                fork.kill()
        return True

    def pytest_internalerror(self, excrepr: Any, excinfo: Any) -> bool:
        print(excinfo.value if isinstance(excinfo.value, RefusedError) else excrepr, file=sys.stderr, flush=True)
        return True

    def report(self, task: Task, status: str, killer: str | None, seconds: float, tests: int) -> None:
        self.said_by({**task.row, "status": status, "by": killer, "seconds": round(seconds, 2), "tests": tests})

    def chosen(self, task: Task) -> list[int]:
        """The tests that call what a task changes, the quickest first."""
        if task.function == MODULE_LEVEL:
            able = [index for index, one in self.known.items() if one.functions] or list(self.known)
        else:
            able = [index for index, one in self.known.items() if task.function in one.functions]
        able.sort(key=lambda index: self.known[index].seconds)
        if "fault" in task.row or not self.limit_s:
            return able
        spent_s = itertools.accumulate(self.known[index].seconds for index in able)
        limit_s = self.limit_s * (ARGUED_SHARE if task.argued else 1)
        return [index for index, sum_s in zip(able, spent_s, strict=True) if sum_s <= limit_s] or able[:1]

    # In the fork

    def pytest_runtest_logreport(self, report: Any) -> None:
        if self.tell >= 0 and report.failed:
            self.word("failed", self.current)
            os._exit(1)

    def word(self, *words: Any) -> None:
        os.write(self.tell, (json.dumps(words) + "\n").encode())

    def run(self, session_items: list[int]) -> None:
        for place, index in enumerate(session_items):
            self.current = index
            self.word("begin", index)
            item = self.items[index]
            following = self.items[session_items[place + 1]] if place + 1 < len(session_items) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)

    def fork(self, task: Task, chosen: list[int]) -> Fork:
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            os.close(write)
            return Fork(task, chosen, pid, read, time.monotonic(), [self.known[index].seconds for index in chosen])
        try:
            os.close(read)
            self.tell = write
            become_child()
            if self.subject.is_kernel:
                interpret(self.module)
            forget(self.module)
            try:
                tree = task.changed()
                exchange(self.module, tree, task.function, task.target)
            except UnchangeableError:
                self.word("unchangeable", -1)
                os._exit(1)
            except Exception:  # A constant that cannot be computed is noticed by every import.
                self.word("failed", -1)
                os._exit(1)
            self.run(chosen)
            self.word("survived", -1)
        finally:
            os._exit(0)

    def ended(self, running: dict[int, Fork]) -> list[Fork]:
        """Forks that came to an end, within a moment."""
        for read in select.select(list(running), [], [], 0.2)[0]:
            running[read].listen()
        found = []
        for read, fork in list(running.items()):
            if not fork.status and fork.is_late:
                fork.status = "timeout"
            if fork.status:
                fork.kill()
                if fork.current >= 0 and fork.status != "survived":
                    fork.killer = self.items[fork.current].nodeid
                del running[read]
                found.append(fork)
        return found

    # Without a mutant

    def baseline(self) -> tuple[dict[int, Known], list, list[str]]:
        """({index of a test: what it takes and which functions of the module it calls}, calls of helpers to be warmed, modules of
        others that tests import). Only tests of files that have changed since are run anew."""
        kept = KEPT / f"{self.subject.name.replace('/', '.')}.pickle"
        key = KEPT_FORMAT, self.subject.source_digest()
        known_key, rows, warm, imports = pickle.loads(kept.read_bytes()) if kept.exists() else (key, {}, [], [])
        if known_key != key:
            rows, warm, imports = {}, [], []
        digests = {item.path: digest(item.path.read_text()) for item in self.items}
        names = [(item.nodeid, digests[item.path]) for item in self.items]
        rows = {name: rows[name] for name in names if name in rows}
        missing = [index for index, name in enumerate(names) if name not in rows]
        if missing:
            found, more_warm, more_imports = self.observe_in_fork(missing)
            rows |= {names[index]: found.get(index) for index in missing}  # None: left out
            warm = list({pickle.dumps(one): one for one in [*warm, *more_warm]}.values())
            imports = list(dict.fromkeys([*imports, *more_imports]))
            kept.write_bytes(pickle.dumps((key, rows, warm, imports)))
        able = {index: Known(*rows[name]) for index, name in enumerate(names) if rows[name] is not None}
        if len(able) < LEAST_ABLE * len(self.items):
            missing_count = len(self.items) - len(able)
            raise RefusedError(f"{missing_count} of {len(self.items)} tests of {self.subject.name} fail without a mutant")
        return able, warm, imports

    def observe_in_fork(self, indices: list[int]) -> tuple[dict[int, tuple[float, set[str]]], list, list[str]]:
        """The same, from a run of these tests."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                try:
                    found: Any = self.observed(indices)
                except BaseException as failure:
                    found = repr(failure)
                with os.fdopen(write, "wb") as out:
                    pickle.dump(found, out)
            finally:
                os._exit(0)
        os.close(write)
        try:
            with os.fdopen(read, "rb") as told:
                text = told.read()
        finally:
            Fork(None, [], pid, -1, 0.0, []).kill()
        answer = pickle.loads(text) if text else "it fell"
        if isinstance(answer, str):
            raise RefusedError(f"the tests of {self.subject.name} do not run without a mutant: {answer}")
        rows, warm, imports, failed = answer
        for name in failed:
            self.said_by({"left out": name})
        return rows, warm, imports

    def observed(self, indices: list[int]) -> tuple[dict[int, tuple[float, set[str]]], list, list[str], list[str]]:
        become_child()
        loaded_before = set(sys.modules)
        if self.subject.is_kernel:
            interpret(self.module)
        forget(self.module)
        names = {}
        tree = ast.parse(self.subject.path.read_text())
        for function, _ in functions_of(tree):
            loaded = None if function == MODULE_LEVEL else function_at(self.module, function)
            for code in codes_in(loaded.__code__) if loaded else ():
                names[id(code)] = function  # Not by itself: in 3.11 its hash changes when it has become warm.
        called: set[str] = set()

        def watch(frame: Any, event: str, _: Any) -> None:
            if event == "call" and id(frame.f_code) in names:
                called.add(names[id(frame.f_code)])

        warm: list = []
        for name in self.subject.warm:
            helper, function = name.split(".")
            listen_to(importlib.import_module(helper), function, name, warm)
        failed: list[str] = []
        config = self.items[0].config
        config.pluginmanager.register(Failures(failed))
        rows = {}
        for index, after in zip(indices, [*indices[1:], None], strict=True):
            item, following = self.items[index], None if after is None else self.items[after]
            called.clear()
            before, begin = len(failed), time.process_time()
            sys.setprofile(watch)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            sys.setprofile(None)
            if len(failed) == before:
                rows[index] = time.process_time() - begin, set(called)
        unique = {pickle.dumps(one): one for one in warm}
        imports = [name for name, one in sys.modules.items()
                   if name not in loaded_before and name.split(".")[0] in ("scipy", "numpy", "hypothesis")
                   and getattr(one, "__spec__", None) is not None]  # fmt: skip
        return rows, list(unique.values()), imports, failed


class Failures:
    """A plugin that notes which tests fail."""

    def __init__(self, failed: list[str]) -> None:
        self.failed = failed

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def listen_to(helper: ModuleType, function: str, name: str, calls: list) -> None:
    """Note what a helper is called with."""
    real = getattr(helper, function)

    def heard(*words: Any, **options: Any) -> Any:
        calls.append((name, (words, options)))
        return real(*words, **options)

    setattr(helper, function, heard)


def become_child() -> None:
    """A group of its own, silent, gone when its parent is gone, and without endless memory."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES,) * 2)


@dataclass
class Fork:
    """A process in which one mutant lives."""

    task: Any
    chosen: list[int]
    pid: int
    read: int
    begin: float
    lasts: list[float]
    begin_test: float = 0.0
    status: str = ""
    killer: str | None = None
    current: int = -1
    allowed_s: float = GRACE_S
    spent_s: float = 0.0  # of processor time, when the current test began
    heard: bytes = b""
    used_s: float = 0.0  # of processor time, when it has ended

    def listen(self) -> None:
        """What the fork says: which test it begins, and how it ended."""
        text = os.read(self.read, 1 << 16)
        if not text:
            self.status = self.status or "killed"  # It fell: a signal, or no memory.
            return
        *lines, self.heard = (self.heard + text).split(b"\n")
        for line in lines:
            word, index = json.loads(line)
            if word == "begin":
                self.current = index
                self.begin_test, self.spent_s = time.monotonic(), self.processor_s()
                self.allowed_s = GRACE_S + SLOWER * self.lasts[self.chosen.index(index)]
            else:
                self.status = {"failed": "killed"}.get(word, word)

    def processor_s(self) -> float:
        """Processor time of the process."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def is_late(self) -> bool:
        """Whether the current test computes too long, or sleeps: a busy machine is no timeout."""
        since = self.begin_test or self.begin
        return self.processor_s() - self.spent_s > self.allowed_s or time.monotonic() - since > ASLEEP * self.allowed_s

    def kill(self) -> None:
        """End the process and what it started, and wait for it."""
        if self.task is not None or self.read < 0:
            for end in (lambda: os.killpg(self.pid, signal.SIGKILL), lambda: os.kill(self.pid, signal.SIGKILL)):
                with contextlib.suppress(ProcessLookupError):
                    end()
        used = os.wait4(self.pid, 0)[2]
        self.used_s = used.ru_utime + used.ru_stime
        if self.read >= 0:
            os.close(self.read)


def run_module(
    subject: Subject, tasks: list[Task], jobs: int, limit_s: float, said_by: Callable[[dict[str, Any]], None]
) -> bool:  # fmt: skip
    """Run the tasks of a module in a process of its own, which loads what the tests load; whether that went well."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C comes by way of the parent, once.
            ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGINT)
            with tempfile.TemporaryDirectory(prefix="farwrite-mutants-") as directory:
                os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = directory
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
                words = [str(TESTS / name) for name in subject.tests]
                options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:faulthandler", "--no-header",
                           f"--rootdir={ROOT}", f"--basetemp={directory}/tests", "-m", "not lab"]  # fmt: skip
                keep = os.dup(1)
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 1)
                with os.fdopen(keep, "w") as screen:
                    plugin = Plugin(subject, tasks, jobs, limit_s, lambda row: said_by({**row, "_screen": screen}))
                    os.chdir(ROOT)
                    code = int(pytest.main([*options, *words], plugins=[plugin]))
        except SystemExit as refusal:
            if isinstance(refusal.code, str):
                print(refusal.code, file=sys.stderr)
        finally:
            os._exit(code)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGINT)
        os.waitpid(pid, 0)
        raise


# Everything


def read_table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text())


def subjects_of(table: dict[str, Any]) -> list[Subject]:
    words = table.get("words", [])
    return [
        Subject(name, sorted(item["tests"]), item.get("warm", []), [*words, *item.get("words", [])])
        for name, item in table["module"].items()
    ]


def mutant_tasks(subject: Subject) -> list[Task]:
    """All mutants of a module, as tasks."""
    source, tests = subject.source_digest(), subject.tests_digest()

    tree = ast.parse(subject.path.read_text())
    codes = {function: digest(ast.unparse(node)) for function, node in functions_of(tree) if function != MODULE_LEVEL}

    def task(mutant: Mutant) -> Task:
        def changed() -> ast.Module:
            mutant.apply()
            return tree

        target = mutant.mutation.split(":")[0] if mutant.function == MODULE_LEVEL else ""
        row = {"module": subject.name, "function": mutant.function, "mutation": mutant.mutation, "line": mutant.line,
               "source": source, "code": codes.get(mutant.function, source), "tests_digest": tests}  # fmt: skip
        return Task(mutant.key, mutant.function, changed, target, row)

    return [task(mutant) for mutant in mutants_of(subject.name, tree, subject.words)]


def fault_tasks(table: dict[str, Any], subject: Subject) -> list[Task]:
    """The named faults of a module; one whose code has changed is refused, because it tests nothing any more."""
    found = []
    for fault in table.get("fault", []):
        if fault["module"] != subject.name:
            continue
        before = subject.path.read_text()
        if before.count(fault["old"]) != 1:
            raise SystemExit(
                f'fault "{fault["name"]}": {subject.name} has its code {before.count(fault["old"])} times, not once. '
                f"Write it anew in {TABLE.relative_to(ROOT)}."
            )
        after = before.replace(fault["old"], fault["new"])
        function = changed_function(ast.parse(before), ast.parse(after))

        def changed(after: str = after) -> ast.Module:
            return ast.parse(after)

        row = {"module": subject.name, "function": function, "mutation": f"fault: {fault['name']}", "fault": fault["name"],
               "line": before[: before.index(fault["old"])].count("\n") + 1, "source": digest(after),
               "tests_digest": subject.tests_digest()}  # fmt: skip
        found.append(Task(f"{subject.name} {fault['name']}", function, changed, "", row))
    return found


def changed_function(before: ast.Module, after: ast.Module) -> str:
    """The one function in which two trees differ."""
    ours, theirs = (
        {name: ast.dump(node) for name, node in functions_of(tree) if name != MODULE_LEVEL} for tree in (before, after)
    )
    differ = [name for name in ours if ours[name] != theirs.get(name)]
    assert len(differ) == 1, f"a named fault changes one function, this one changes {differ}"
    return differ[0]


def read_journal() -> dict[str, dict[str, Any]]:
    """The last row of each mutant."""
    found = {}
    for line in JOURNAL.read_text().splitlines() if JOURNAL.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # Cut off when it was written.
        found[f"{row['module']} {row['function']}: {row['mutation']}"] = row
    return found


def still_true(row: dict[str, Any] | None, task: Task) -> bool:
    """Whether what was run would come out the same: a kill while the function is as it was, all else the module and the tests."""
    if row is None:
        return False
    if row["status"] == "killed" and "fault" not in row:
        return row["code"] == task.row["code"]
    return all(row[name] == task.row[name] for name in ("source", "tests_digest"))


def is_open(row: dict[str, Any] | None, task: Task) -> bool:
    """Whether a mutant survived and nobody has said why."""
    return row is not None and still_true(row, task) and row["status"] == "survived" and not task.argued


def argued(table: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
    """Why a survivor changes no verdict; None when nobody has said."""
    plain = re.sub(r" #\d+$", "", row["mutation"])
    for item in table.get("survivor", []):
        if item["module"] == row["module"] and fnmatch.fnmatchcase(row["function"], item.get("function", "*")):
            mutations = item["mutation"] if isinstance(item["mutation"], list) else [item["mutation"]]
            begins = tuple(one[:-3] for one in mutations if one.endswith("..."))
            if plain.startswith(begins) or any(one in ("*", row["mutation"], plain) for one in mutations):
                return item
    return None


def summary_of(table: dict[str, Any], subject: Subject, tasks: list[Task], journal: dict[str, dict]) -> dict[str, Any]:
    """One module as results/mutants.json has it."""
    rows = [journal[name] for task in tasks if still_true(journal.get(name := journal_key(task)), task)]
    counts = Counter(row["status"] for row in rows)
    survivors = []
    for row in rows:
        if row["status"] == "survived":
            said_why = argued(table, row)
            survivors.append({
                "function": row["function"], "mutation": row["mutation"], "line": row["line"], "tests": row["tests"],
                "kind": said_why["kind"] if said_why else None, "why": said_why["why"] if said_why else None,
            })  # fmt: skip
    return {
        "mutants": len(tasks), "run": len(rows) - counts["unchangeable"], "killed": counts["killed"],
        "survived": counts["survived"], "timeout": counts["timeout"], "unchangeable": counts["unchangeable"],
        "unreached": counts["unreached"],
        "unreached_functions": sorted({row["function"] for row in rows if row["status"] == "unreached"}),
        "unreached_why": table["module"][subject.name].get("unreached", ""),
        "seconds": round(sum(row["seconds"] for row in rows)), "source": subject.source_digest(), "survivors": survivors,
    }  # fmt: skip


def journal_key(task: Task) -> str:
    return f"{task.row['module']} {task.row['function']}: {task.row['mutation']}"


def page(made: dict[str, Any]) -> str:
    """The results as a page."""
    lines = [
        "# Mutants", "",
        f"Made by `make mutants`, farwrite {made['farwrite']}. Each mutant is one small change of the code: a comparison at its "
        "boundary or turned round, an arithmetic operation exchanged, a constant one more and one less, min for max, `and` for "
        "`or`, one condition of several left out, a statement or a keyword left out, a filter dropped, None returned. It is "
        "killed when a test that calls the function fails (or never ends: timeout). Functions that only make sentences, texts "
        "and asserts are not mutated, nor is what cannot be exchanged in a running module (fields of classes, decorators). "
        "Kernels are interpreted.",
        "", "## Named faults", "",
        "With these eleven in force at once all tests passed in an earlier version; some are planted in several places.", "",
        "| fault | module | killed by |", "|---|---|---|",
    ]  # fmt: skip
    for fault in made["faults"]:
        by = fault["by"].removeprefix("tests/").replace("|", "\\|") if fault["by"] else f"**{fault['status']}**"
        killer = by if len(by) <= KILLER_CHARACTERS else f"{by[:KILLER_CHARACTERS]}…"
        lines.append(f"| {fault['fault']} | {fault['module']} | {killer} |")
    columns = ("mutants", "killed", "timeout", "survived", "not argued", "unreached", "not run")
    lines += [
        "", "## Modules", "", "Seconds are of one processor. Unreached: in functions that none of the tests calls as Python; "
        "below stands what tests them.", "",
        f"| module | {' | '.join(columns)} | seconds |", f"|---|{'---:|' * (len(columns) + 1)}",
    ]  # fmt: skip
    total: Counter[str] = Counter()
    for name, item in made["modules"].items():
        row = {
            "mutants": item["mutants"] - item["unchangeable"], "killed": item["killed"], "timeout": item["timeout"],
            "survived": item["survived"], "not argued": sum(one["why"] is None for one in item["survivors"]),
            "unreached": item["unreached"], "not run": item["mutants"] - item["unchangeable"] - item["run"],
            "seconds": item["seconds"],
        }  # fmt: skip
        total.update(row)
        lines.append(f"| {name} | {' | '.join(str(value) for value in row.values())} |")
    lines.append(f"| all | {' | '.join(str(total[word]) for word in (*columns, 'seconds'))} |")
    unreached = {name: item for name, item in made["modules"].items() if item["unreached"]}
    lines += ["", "## Unreached", ""] if unreached else []
    for name, item in unreached.items():
        lines.append(f"- {name}: {', '.join(item['unreached_functions'])}. {item['unreached_why']}".rstrip())
    kinds = ", ".join(f"*{kind}* ({meaning})" for kind, meaning in KINDS.items())
    lines += ["", "## Survivors", "", f"Why each changes no verdict: {kinds}.", ""]
    for name, item in made["modules"].items():
        if not item["survivors"]:
            continue
        lines += [f"### {name}", "", "| function | mutation | kind | why |", "|---|---|---|---|"]
        for one in item["survivors"]:
            mutation = one["mutation"].replace("|", "\\|")
            lines.append(f"| {one['function']} | `{mutation}` | {one['kind'] or '**open**'} | {one['why'] or ''} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def write_results(table: dict[str, Any], subjects: list[Subject], everything: dict[str, list[Task]], faults: list[Task]) -> dict:
    """Write what is known. A module of which nothing was run here keeps what results/mutants.json says of it as it is now."""
    from farwrite import __version__

    journal = read_journal()
    old = json.loads(JSON.read_text()) if JSON.exists() else {"modules": {}, "faults": []}
    made: dict[str, Any] = {"farwrite": __version__, "faults": [], "modules": {}}
    for task in faults:
        row = journal.get(journal_key(task))
        if still_true(row, task):
            assert row is not None
            made["faults"].append({key: row[key] for key in ("fault", "module", "function", "status", "by")})
        else:
            made["faults"] += [one for one in old["faults"] if one["fault"] == task.row["fault"]][:1]
    for subject in subjects:
        found = summary_of(table, subject, everything[subject.name], journal)
        known_before = old["modules"].get(subject.name)
        kept = known_before and not found["run"] and known_before.get("source") == found["source"]
        made["modules"][subject.name] = known_before if kept else found
    JSON.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(made))
    return made


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--module", action="append", default=[], help="such as analysis/estimate, or a pattern: 'engine/*'")
    words.add_argument("--function", default="*", help="only mutants of functions like this")
    words.add_argument("--sample", type=int, help="so many mutants, drawn from those asked for")
    words.add_argument("--seed", type=int, default=1, help="of the sample")
    words.add_argument("--jobs", type=int, default=1, help="mutants at once")
    words.add_argument("--limit", type=float, default=20.0, metavar="SECONDS",
                       help="of tests for a mutant, the quickest first; what passes them has survived. 0: all")  # fmt: skip
    words.add_argument("--faults", action="store_true", help="only the named faults")
    words.add_argument("--no-faults", action="store_true", help="without the named faults")
    words.add_argument("--open", action="store_true", help="once more those that survived and are not argued; use --limit 0")
    words.add_argument("--again", action="store_true", help="also those whose result is known")
    words.add_argument("--list", action="store_true", help="count the mutants, run none")
    words.add_argument("--survivors", action="store_true", help="print those that are not argued yet, run none")
    asked = words.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ignored where a shell started us in the background.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    table = read_table()
    subjects = subjects_of(table)
    patterns = asked.module or ["*"]
    chosen = [one for one in subjects if any(fnmatch.fnmatch(one.name, pattern) for pattern in patterns)]
    if not chosen:
        raise SystemExit(f"no such module; there are {', '.join(one.name for one in subjects)}")
    everything = {one.name: mutant_tasks(one) for one in subjects}
    for task in itertools.chain(*everything.values()):
        task.argued = argued(table, task.row) is not None
    faults = {one.name: fault_tasks(table, one) for one in subjects}
    journal = {} if asked.again else read_journal()
    if asked.survivors:
        for one in chosen:
            for task in everything[one.name]:
                row = journal.get(journal_key(task))
                if row is not None and is_open(row, task):
                    where = f"{one.path.relative_to(ROOT)}:{row['line']}"
                    print(f"{where} {row['function']}: {row['mutation']}  ({row['tests']} tests)")
        return 0

    drawn = [task for one in chosen for task in everything[one.name] if fnmatch.fnmatch(task.function, asked.function)]
    if asked.sample is not None:
        drawn = random.Random(asked.seed).sample(drawn, min(asked.sample, len(drawn)))
    if asked.faults:
        drawn = []
    KEPT.mkdir(parents=True, exist_ok=True)
    begin, code = time.monotonic(), 0
    try:
        for one in chosen:
            mine = [task for task in drawn if task.row["module"] == one.name]
            planted = [] if asked.no_faults else faults[one.name]
            tasks = [task for task in [*planted, *mine] if not still_true(journal.get(journal_key(task)), task)]
            if asked.open:
                tasks = [task for task in mine if is_open(journal.get(journal_key(task)), task)]
            if asked.list:
                print(f"{one.name}: {len(mine)} mutants, {len(tasks)} to run")
                continue
            if tasks and not run_module(one, tasks, asked.jobs, asked.limit, keep):
                code = 1
    except KeyboardInterrupt:
        print("interrupted: what was run is kept, and left out when you run this again", file=sys.stderr)
        code = 130
    if asked.list:
        return 0
    made = write_results(table, subjects, everything, [task for one in subjects for task in faults[one.name]])
    print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)
    alive = [fault for fault in made["faults"] if fault["status"] not in ("killed", "timeout")]
    for fault in alive:
        print(f"NAMED FAULT SURVIVES: {fault['fault']} ({fault['module']})", file=sys.stderr)
    unargued = sum(item["why"] is None for name in made["modules"] for item in made["modules"][name]["survivors"])
    if unargued:
        print(f"{unargued} survivors are not argued: --survivors lists them, mutants.toml takes the arguments", file=sys.stderr)
    return code or int(bool(alive or unargued))


def keep(row: dict[str, Any]) -> None:
    """Append a result to the journal, and show it."""
    screen = row.pop("_screen")
    if "left out" in row:
        print(f"left out  {row['left out']}: it fails without a mutant", file=screen, flush=True)
        return
    with JOURNAL.open("a") as file:
        file.write(json.dumps(row) + "\n")
    if row["status"] != "killed" or "fault" in row:
        by = f" by {row['by']}" if row["by"] else ""
        where = f"{row['module']}:{row['line']} {row['function']}"
        print(f"{row['status']:9} {where}: {row['mutation']}{by}", file=screen, flush=True)


if __name__ == "__main__":
    sys.exit(main())
