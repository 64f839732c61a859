"""The verbs of a target, for kernels: submit, trim, read, progress, completed, waited. A state's type says which target is meant.

The measured loop is written once against these; Numba compiles it anew for every kind of target, so no call is
looked up while measuring. A target completes writes and trims in the order of submission, and reads at once.
"""

from __future__ import annotations

from numba import types
from numba.extending import overload

from . import null_kernel as null
from . import replicated_kernel as replicated

# (state type, module that defines the verbs)
TARGETS = ((null.NullTarget, null), (replicated.ReplicatedTarget, replicated))


def submit(target, number, address, size, now_ns, payload_profile):
    """Begin write `number` of the plan; 0 when the target can take no more just now, a negative status when it never can.

    `grain` is the payload's.
    """
    raise TypeError("a verb for compiled callers")


def trim(target, address, size, now_ns):
    """Begin giving back a range; answers what submit() does."""
    raise TypeError("a verb for compiled callers")


def read(target, address, size):
    """Bytes read, or a negative status; what is complete is seen."""
    raise TypeError("a verb for compiled callers")


def progress(target, deadline_ns):
    """Work, or sleep, until something has happened or the deadline; 0 or a negative status."""
    raise TypeError("a verb for compiled callers")


def completed(target):
    """How many of the submitted writes and trims are complete, counted in order of submission."""
    raise TypeError("a verb for compiled callers")


def waited(target):
    """(begin_ns, end_ns) of the sleep in the last progress(): what lies outside of it was work."""
    raise TypeError("a verb for compiled callers")


def meaning_of(target):
    """The module that gives the verbs their meaning for this state, or None."""
    if isinstance(target, types.BaseNamedTuple):  # NamedTuple, or NamedUniTuple when all fields are alike.
        for state, module in TARGETS:
            if target.instance_class is state:
                return module
    return None


@overload(submit, jit_options={"_nrt": False, "forceinline": True})
def submit_of(target, number, address, size, now_ns, payload_profile):
    module = meaning_of(target)
    if module is None:
        return None
    chosen = module.submit
    return lambda target, number, address, size, now_ns, payload_profile: chosen(
        target, number, address, size, now_ns, payload_profile
    )


@overload(trim, jit_options={"_nrt": False, "forceinline": True})
def trim_of(target, address, size, now_ns):
    module = meaning_of(target)
    if module is None:
        return None
    chosen = module.trim
    return lambda target, address, size, now_ns: chosen(target, address, size, now_ns)


@overload(read, jit_options={"_nrt": False, "forceinline": True})
def read_of(target, address, size):
    module = meaning_of(target)
    if module is None:
        return None
    chosen = module.read
    return lambda target, address, size: chosen(target, address, size)


@overload(progress, jit_options={"_nrt": False, "forceinline": True})
def progress_of(target, deadline_ns):
    module = meaning_of(target)
    if module is None:
        return None
    chosen = module.progress
    return lambda target, deadline_ns: chosen(target, deadline_ns)


@overload(completed, jit_options={"_nrt": False, "forceinline": True})
def completed_of(target):
    module = meaning_of(target)
    if module is None:
        return None
    chosen = module.completed
    return lambda target: chosen(target)


@overload(waited, jit_options={"_nrt": False, "forceinline": True})
def waited_of(target):
    module = meaning_of(target)
    if module is None:
        return None
    chosen = module.waited
    return lambda target: chosen(target)
