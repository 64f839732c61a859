"""A kernel is translated once, and emitted as machine code only where Python calls it; the cache holds both.

Each step happens in a process of its own, forked before the kernels are imported: what one of them has compiled, the next can
only have from the cache.
"""

import importlib
import os
import pickle
import traceback

import numpy as np
import pytest
from numba.core import config, event

from farwrite.base import jit, linking
from farwrite.base.linking import Kernel

SOURCE = """
import numpy as np
from farwrite.base.jit import inline_kernel, kernel

LIMIT = 7


@inline_kernel
def twice(number):
    return number + number


@kernel()
def checked(values, index):
    assert 0 <= index < values.size
    return values[index]


@kernel()
def inner(values, index, unused=0):
    return twice(checked(values, index))


@kernel(allocates=True)
def copied(values):
    return np.sum(values[1:].copy())


@kernel()
def outer(values):
    found = np.int64(0)
    for index in range(values.size):
        found += inner(values, index)
    if found > 1000:
        raise ValueError("too much")
    return found


@kernel()
def beyond(values):
    return outer(values) + inner(values, values.size) + copied(values)


def asks(values):
    return inner(values, 1)
"""


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """Run a function of the kernels' module in a process of its own; answers what it answers, and what was compiled there."""
    (tmp_path / "linked_kernels.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))  # Numba looks again before it compiles.

    def run(work):
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with os.fdopen(theirs, "wb") as pipe:
                    pickle.dump(done(work), pipe)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            text = pipe.read()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return pickle.loads(text)

    return run


class Compiled(event.Listener):
    """The names of what is translated or emitted, in this order."""

    def __init__(self):
        self.names = []

    def on_start(self, event):
        pass

    def on_end(self, event):
        self.names.append(event.data["dispatcher"].py_func.__name__)


def done(work):
    heard = Compiled()
    event.register("numba:compile", heard)
    config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]
    module = importlib.import_module("linked_kernels")
    answer = work(module, np.arange(1, 5))
    kernels = [value for value in vars(module).values() if isinstance(value, Kernel)]
    return answer, [name for name in heard.names if name in vars(module)], sorted(one.__name__ for one in kernels if one.emitted)


def sums(module, values):
    return module.outer(values)


def test_what_python_calls_is_emitted_and_nothing_else_and_the_cache_holds_it(apart):
    answer, compiled, emitted = apart(sums)
    assert (answer, emitted) == (20, ["outer"])
    assert sorted(compiled) == ["checked", "inner", "outer", "outer", "twice"]  # Translated, and one of them emitted.
    assert apart(sums) == (20, [], ["outer"])


def test_a_kernel_that_was_compiled_for_another_is_emitted_when_python_calls_it_and_is_cached_then(apart):
    apart(sums)
    both = lambda module, values: (module.inner(values, 2), module.outer(values))  # noqa: E731
    assert apart(both) == ((6, 20), ["inner"], ["inner", "outer"])
    assert apart(both) == ((6, 20), [], ["inner", "outer"])
    at_once = lambda module, values: (module.outer(values), module.inner(values, 2), module.outer(values))  # noqa: E731
    assert apart(at_once) == ((20, 6, 20), [], ["inner", "outer"])


def test_a_caller_is_linked_with_what_other_processes_have_translated_and_emitted(apart):
    apart(lambda module, values: module.inner(values, 1))
    assert apart(sums)[:2] == (20, ["outer", "outer"])

    def fails(module, values):
        with pytest.raises(AssertionError):
            module.beyond(values)
        with pytest.raises(ValueError, match="too much"):
            module.beyond(values * 1000)
        return module.copied(values)

    answer, compiled, emitted = apart(fails)
    assert answer == 9 and emitted == ["beyond", "copied"] and set(compiled) == {"beyond", "copied"}
    assert apart(fails) == (9, [], ["beyond", "copied"])


def test_other_types_are_compiled_anew(apart):
    apart(sums)
    both = lambda module, values: (module.outer(values.astype("int32")), module.outer(values))  # noqa: E731
    answer, compiled, _ = apart(both)
    assert answer == (20, 20) and compiled.count("outer") == 2


def test_a_part_that_was_removed_is_translated_again(apart):
    apart(sums)

    def removed(module, values):
        for part in linking.PARTS.path("").iterdir():
            part.unlink()
        return module.inner(values, 0), module.outer(values)

    answer, compiled, _ = apart(removed)
    assert answer == (2, 20) and sorted(compiled) == ["checked", "inner", "inner", "outer", "outer", "twice"]
    assert apart(removed)[0] == (2, 20)


def test_what_a_function_of_the_package_looks_up_is_emitted_beforehand(apart):
    def beforehand(module, values):
        module.outer(values)
        linking.emit_called(module.__name__)
        return sorted(one.__name__ for one in Kernel.known if one.emitted and one.__module__ == module.__name__)

    assert apart(beforehand)[0] == ["inner", "outer"]

    def beforehand_again(module, values):
        linking.look_up = None  # What was found for these modules is in the cache.
        return beforehand(module, values)

    assert apart(beforehand_again)[0] == ["inner", "outer"]


def test_a_kernel_is_not_sent_to_other_processes(apart):
    def sent(module, values):
        with pytest.raises(TypeError, match="kernel inner is part of farwrite"):
            Kernel._rebuild("", module.inner.py_func, {}, {}, True, [])
        return True

    assert apart(sent)[0]


def test_parts_lie_in_the_cache_of_these_sources():
    assert linking.PARTS.path("part").is_relative_to(os.environ["NUMBA_CACHE_DIR"]) and jit.DIGEST in str(linking.PARTS.path(""))
