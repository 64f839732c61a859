"""Every kernel test runs twice: compiled, as users run it, and interpreted, where a debugger and coverage can see it.

Only the kernel under test is interpreted, what it calls stays compiled. Kernels with system calls or intrinsics cannot
be interpreted; they are tested compiled only, and their tests say so.
"""

from functools import wraps

import numpy as np
import pytest


def both_ways(kernel):
    """Two pytest parameters, `compiled` and `interpreted`; one if Numba is switched off."""
    if not hasattr(kernel, "py_func"):
        return [pytest.param(interpreted(kernel), id="interpreted")]
    return [pytest.param(kernel, id="compiled"), pytest.param(interpreted(kernel.py_func), id="interpreted")]


def interpreted(function):
    """The plain function, with NumPy integers wrapping around silently as they do when compiled."""

    @wraps(function)
    def quiet(*arguments):
        with np.errstate(over="ignore"):
            return function(*arguments)

    return quiet
