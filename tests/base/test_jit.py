"""The cache of machine code is of one text of every file that can be in it: an edit of any starts a new one."""

import ast
import subprocess
import sys
from functools import cache

import pytest

from console import ROOT
from farwrite.base import jit

PACKAGE = ROOT / "bench" / "farwrite"
NOT_COMPILED = ("report/terminal.py", "commands/run.py", "analysis/claims.py", "engine/node.py", "experiment/drill/drills.py")


@cache
def sources():
    return [path.relative_to(PACKAGE).as_posix() for path in jit.compiled_sources(PACKAGE)]


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The package's sources somewhere else."""
    made = tmp_path_factory.mktemp("copy") / "farwrite"
    for path in PACKAGE.rglob("*.py"):
        place = made / path.relative_to(PACKAGE)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    return made


def edited(package, name):
    """The digest with one line more in a file."""
    path = package / name
    text = path.read_bytes()
    path.write_bytes(text + b"\nEDITED = 1\n")
    try:
        return jit.source_digest(package)
    finally:
        path.write_bytes(text)


def test_the_digest_is_of_the_text_wherever_it_lies(copied):
    assert jit.source_digest(copied) == jit.source_digest(PACKAGE) == jit.DIGEST


def test_an_edit_of_any_file_that_can_be_in_machine_code_changes_the_digest(copied):
    digests = {edited(copied, name) for name in sources()}
    assert len(digests) == len(sources()) and jit.DIGEST not in digests


@pytest.mark.parametrize("name", [
    "targets/interface.py", "base/units.py", "workload/plan_kernel.py", "base/host/libc.py", "engine/journal.py", "base/jit.py",
])  # fmt: skip
def test_the_file_that_every_target_edits_constants_and_kernels_are_among_them(copied, name):
    assert edited(copied, name) != jit.DIGEST


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_an_edit_of_what_is_never_compiled_keeps_the_cache(copied, name):
    assert (copied / name).is_file() and edited(copied, name) == jit.DIGEST


def test_a_new_kernel_file_and_what_it_imports_are_of_the_digest(copied):
    new, constants = copied / "brand_new.py", copied / "lab" / "brand_new_constants.py"
    constants.write_text("LIMIT = 3\n")
    before = jit.source_digest(copied)
    names = "(  # A remark.\n    # (another)\n    brand_new_constants as constants,\n)"
    new.write_text(f"from .jit import kernel\nfrom .lab import {names}\n")
    try:
        with_it = jit.source_digest(copied)
        assert with_it != before == jit.DIGEST and edited(copied, "lab/brand_new_constants.py") != with_it
    finally:
        new.unlink()
        constants.unlink()


def test_no_import_of_ours_is_overlooked():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("farwrite") for name in node.names), path
            if not isinstance(node, ast.ImportFrom):
                continue
            assert node.level or not (node.module or "").startswith("farwrite"), path
            if node.level:
                place = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                parts = [place.with_suffix(".py"), place / "__init__.py", *(place / f"{name.name}.py" for name in node.names)]
                assert {part for part in parts if part.is_file()} <= jit.imported(path), (path, node.lineno)


LOADED = """
import sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from farwrite.base import crc_kernel, histogram_kernel, jit
from farwrite.experiment import precompile
from farwrite.workload import payload_kernel, plan_kernel
for module in [one for name, one in list(sys.modules.items()) if name.startswith("farwrite")]:
    for value in list(vars(module).values()):
        function = value.py_func if isinstance(value, Dispatcher) else value._defn if isinstance(value, _Intrinsic) else None
        if function is not None:
            print(Path(function.__code__.co_filename).relative_to(jit.PACKAGE).as_posix())
"""


def test_every_kernel_and_intrinsic_that_is_loaded_is_of_a_file_in_the_digest():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert len(found) > 20 and "base/host/libc.py" in found
    assert found <= set(sources())
