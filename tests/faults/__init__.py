"""Faults that are injected for real, and what happens to a run, its records and its neighbours.

`python -m tests.faults` injects all of them and renders docs/faults.md; the quick ones run with the tests. A fault is
one function in one of these files: it injects the fault, looks, and returns in words what it saw. It raises
AssertionError for what must not happen, and Impossible if the fault cannot be injected on this machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.processes.fork_server import ForkServer

PLANTED = "tests.faults.planted"
"""The module with the techniques that make arms fail."""


class Impossible(Exception):
    """The fault cannot be injected here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where a fault is injected: a separate `folder`, a small `text` to train on, and a fork server that knows the
    planted techniques. `moments` is how often random events happen. Times are meaningful only if the machine is
    `quiet`, which it is not while tests run in parallel."""

    folder: Path
    text: Path
    fork_server: ForkServer
    moments: int
    quiet: bool = True


Inject = Callable[[Ground], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the table."""

    group: str
    what: str
    inject: Inject
    quick: bool


FAULTS: list[Fault] = []


def fault(
    group: str, what: str, *, quick: bool = False
) -> Callable[[Callable[[Ground], str]], Callable[[Ground], str]]:
    """Register the function as a fault of a group."""

    def enter(inject: Callable[[Ground], str]) -> Callable[[Ground], str]:
        FAULTS.append(Fault(group=group, what=what, inject=inject, quick=quick))
        return inject

    return enter


def every_fault() -> list[Fault]:
    """All of them, group by group."""
    for name in ("arms", "signals", "disk", "storage", "kept", "strangers", "gates", "networks", "soak"):
        importlib.import_module(f"tests.faults.{name}")
    return FAULTS
