"""The architecture: which package may import which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

FLOORS = ("bench", "harness", "results", "reports")
"""Each package may import those before it."""

ROOF = ("bench.cli", "bench.api")
"""The command line and the Python API: they may import all packages, and none may import them."""


def imported(file: Path) -> Iterator[str]:
    """The dotted names of all modules that a file imports anywhere, including those only for types."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{item.name}" for item in node.names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_run_one_way(floor: str) -> None:
    above = [*FLOORS[FLOORS.index(floor) + 1 :], *ROOF]
    roof = [ROOT / name.replace(".", "/") for name in ROOF]
    files = [file for file in (ROOT / floor).rglob("*.py") if not any(map(file.is_relative_to, roof))]
    assert files
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        if file != ROOT / "bench" / "__main__.py"
        for name in imported(file)
        if any(is_in(name, package) for package in above)
    }
    assert not wrong


def test_every_command_has_a_file_of_its_name() -> None:
    from bench.cli.app import app

    names = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    files = {file.stem.replace("_", "-") for file in (ROOT / "bench" / "cli").glob("*.py")}
    assert names and {name.replace("_", "-") for name in names} <= files


ROOMS = {
    "harness": (
        "telemetry",
        "evidence",
        "timing",
        "processes",
        "hosts",
        "prediction",
        "preparation",
        "learning",
        "heats",
        "ab",
    ),
    "reports": ("wording", "charts", "text", "formats", "exports", "page"),
}
"""The sub-packages of a package: each may import those before it."""


@pytest.mark.parametrize(("package", "room"), [(package, room) for package in ROOMS for room in ROOMS[package]])
def test_rooms_import_one_way(package: str, room: str) -> None:
    rooms = ROOMS[package]
    later = rooms[rooms.index(room) + 1 :]
    files = list((ROOT / package / room).glob("*.py"))
    assert files
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imported(file)
        if any(is_in(name, f"{package}.{other}") for other in later)
    }
    assert not wrong


def test_every_room_is_known() -> None:
    for package, rooms in ROOMS.items():
        assert {folder.parent.name for folder in (ROOT / package).glob("*/__init__.py")} == set(rooms)
    assert {file.name for file in (ROOT / "harness").glob("*.py")} == {"__init__.py", "message.py", "record.py"}
    assert {file.name for file in (ROOT / "reports").glob("*.py")} == {"__init__.py", "pytest_plugin.py"}
