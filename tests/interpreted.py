"""Kernels interpreted all the way down: every index and every sum that leaves its bounds is an error.

`both_ways` interprets one kernel and leaves what it calls compiled. Here everything that a kernel calls is interpreted with it;
a negative index, a slice that does not lie in its array and a sum that wraps are refused, which neither machine code nor
NUMBA_BOUNDSCHECK does. Nothing is compiled for that. Only a pretend world can be lived in: there are no system calls.
"""

import builtins
import sys
from types import CodeType, FunctionType, ModuleType, SimpleNamespace

import numpy as np
from numba.core.dispatcher import Dispatcher

from farwrite.base.crc_kernel import crc32c
from farwrite.base.prng_kernel import random_of
from farwrite.engine.resync_kernel import digest


class Strict(np.ndarray):
    """An array in which nothing is counted from the end, and no slice is shortened."""

    def __getitem__(self, key):
        self.check(key)
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        self.check(key)
        super().__setitem__(key, value)

    def check(self, key):
        for axis, part in enumerate(key if isinstance(key, tuple) else (key,)):
            if isinstance(part, slice):
                begin, end = part.start or 0, self.shape[axis] if part.stop is None else part.stop
                if not 0 <= begin <= end <= self.shape[axis]:
                    raise IndexError(f"[{begin}:{end}] of {self.shape[axis]}")
            elif not isinstance(part, str) and part < 0:  # What is too large, NumPy refuses itself.
                raise IndexError(f"[{part}] of {self.shape[axis]}")


def strict(state):
    """The same state over the same memory, its arrays strict."""
    if isinstance(state, np.ndarray):
        return state.view(Strict)
    return type(state)(*map(strict, state)) if isinstance(state, tuple) else state


def strict_crc(crc, data, start, stop):
    return crc32c(np.int64(crc), np.asarray(data), np.int64(start), np.int64(stop))  # It asserts its bounds itself.


def strict_digest(data, words, start, size):
    """It wraps around on purpose."""
    assert 0 <= start <= start + size <= data.size
    return digest(np.asarray(data), np.asarray(words), np.int64(start), np.int64(size))


COMPILED = {crc32c: strict_crc, digest: strict_digest, random_of: random_of}


class Interpreter:
    """Interpreted twins of kernels and of the modules that they name; each is made once."""

    def __init__(self):
        self.modules, self.functions = {}, {}

    def module(self, real):
        """The module with its kernels interpreted."""
        if real.__name__ not in self.modules:
            made = self.modules[real.__name__] = SimpleNamespace()  # First: modules name each other.
            for name, value in vars(real).items():
                setattr(made, name, self.twin(value))
        return self.modules[real.__name__]

    def twin(self, value):
        if isinstance(value, Dispatcher):
            return COMPILED[value] if value in COMPILED else self.function(value)
        if isinstance(value, ModuleType) and value.__name__.startswith("farwrite."):
            return self.module(value)
        return value

    def function(self, kernel):
        plain = kernel.py_func
        if plain not in self.functions:
            scope = {"__builtins__": builtins}
            made = FunctionType(plain.__code__, scope, plain.__name__, plain.__defaults__, plain.__closure__)
            self.functions[plain] = made
            known = vars(sys.modules[plain.__module__])
            scope.update({name: self.twin(known[name]) for name in names_of(plain.__code__) if name in known})
        return self.functions[plain]


def names_of(code):
    """The names that a function looks up, comprehensions inside of it included."""
    inner = [names_of(part) for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*inner)
