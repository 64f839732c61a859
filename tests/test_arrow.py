"""The arrow: a room imports only from rooms to its left and from the shelf, and no two files import each other in a circle."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import farwrite

PACKAGE = Path(farwrite.__file__).parent

# Which rooms each may import from. The recording is a wall: what stands behind it needs neither lab nor engine, but for what
# they have to say of themselves (a survey, a doctor's findings), which a report prints.
BEHIND = {"base", "workload", "recording", "progress", "analysis"}
MAY = {
    "base": set(),
    "workload": {"base"},
    "recording": {"base", "workload"},
    "progress": {"base", "recording"},
    "lab": {"base", "workload", "recording", "progress"},
    "engine": {"base", "workload"},
    "targets": {"base", "workload", "engine"},
    "analysis": {"base", "workload", "recording"},
    "experiment": {"base", "workload", "recording", "progress", "lab", "engine", "targets", "analysis"},
    "compare": BEHIND,
    "gate": BEHIND | {"compare"},
    "report": BEHIND | {"compare", "gate", "lab"},
    "testing": BEHIND | {"compare", "gate", "lab"},
}
FACES = {"commands", "cli", "__main__"}  # These may import everything.


def name_of(path: Path) -> str:
    """A file's dotted name, without "farwrite."."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


@cache
def imported(name: str) -> set[str]:
    """The files of ours that a file imports, wherever in it, and for types alone as well."""
    path, found = FILES[name], set()
    inside = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            room = inside[: len(inside) - node.level + 1]
            module = ".".join([*room, *(node.module or "").split(".")]).strip(".")
            parts = [".".join(filter(None, [module, part.name])) for part in node.names]
            found |= {part if part in FILES else module for part in parts}
    return found - {"", name}  # "": the version.


def room_of(name: str) -> str:
    """The room that a file stands in."""
    return name.partition(".")[0]


def test_a_room_imports_only_from_rooms_to_its_left():
    wrong = [
        f"{name} imports {other}" for name in FILES if name and room_of(name) not in FACES for other in imported(name)
        if room_of(other) not in MAY[room_of(name)] | {room_of(name)}
    ]  # fmt: skip
    assert not wrong
    assert {room_of(name) for name in FILES} == {*MAY, *FACES, ""}  # A new room says whom it may import.


def test_no_files_import_each_other_in_a_circle():
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for other in sorted(imported(name)):
                follow(other, (*way, name))
            done.add(name)

    for name in sorted(FILES):
        follow(name, ())


def test_every_import_of_ours_is_found():
    assert {"lab.lab", "workload.tables", "recording", "experiment.cells"} <= imported("experiment.measure")
    assert imported("recording") >= {"workload.tables", "base.documents"} and not imported("base.protocol")
    assert all(other in FILES for name in FILES for other in imported(name))


def test_the_reading_order_names_files_that_there_are():
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([a-z_/]+/)?([a-z_]+\.py)`", page)
    assert len(named) > 60
    assert not [f"{room}{file}" for room, file in named
                if room != "tests/" and not any(path.match(f"{room}{file}") for path in FILES.values())]  # fmt: skip
    assert {room.rstrip("/").partition("/")[0] for room, _ in named if room} <= {*MAY, *FACES, "tests"}


def test_the_package_knows_nothing_of_the_tools_beside_it():
    beside = [path.name for path in PACKAGE.parent.iterdir() if path.is_dir() and path.name not in (PACKAGE.name, "__pycache__")]
    assert "rivals" in beside
    imports: set[str] = set()
    for node in (node for path in FILES.values() for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            imports |= {part.name for part in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports.add(node.module or "")
    assert "numpy" in imports and not {name.partition(".")[0] for name in imports} & set(beside)
