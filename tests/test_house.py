"""The shape of the house: which package may import which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = ("bench", "harness", "results", "reports")
"""Each may import those before it."""

ROOF = "bench.cli"
"""The command line, which sees all of them and is seen by none."""


def imported(file: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports anywhere, for types alone too."""
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
    above = [*FLOORS[FLOORS.index(floor) + 1 :], ROOF]
    files = [file for file in (ROOT / floor).rglob("*.py") if not file.is_relative_to(ROOT / "bench" / "cli")]
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
