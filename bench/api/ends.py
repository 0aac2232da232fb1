"""The two sides of a gate, base and head: what the user names, and the code and interpreter behind it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.composition import compose
from bench.spec import BASELINE
from harness.ab.checkout import Checkout
from harness.ab.sides import Side
from harness.ab.stored import Stored
from results import folders, store

Pair = tuple[str | None, str | None]
"""A value for the base and one for the head."""

Compositions = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Base and head as the user names them. A revision of None is the working tree. A `stored` run takes the place of
    the base."""

    revisions: Pair
    pythons: Pair
    techniques: Compositions
    stored: Stored | None


def read(revisions: Pair, pythons: Pair, techniques: Compositions) -> Ends:
    """Read base and head; a base revision may also be the folder of a run. Raises ValueError for techniques that are
    unknown or exclude each other, and for a run that cannot be read."""
    for names in techniques:
        compose(names)
    stored = None
    if revisions[0] and folders.has_records(Path(revisions[0])):
        folder = Path(revisions[0])
        stored = Stored(
            name=str(folder),
            label="+".join(techniques[0]) or BASELINE,
            records=store.read(folder),
            machine=store.read_machine(folder),
            plan=store.read_plan(folder),
        )
        revisions = (None, revisions[1])
    return Ends(revisions=revisions, pythons=pythons, techniques=techniques, stored=stored)


def twins(ends: Ends) -> Ends:
    """The base on both sides. Raises ValueError if anything was given for the head, or if the base is a stored run."""
    if ends.stored or ends.revisions[1] or ends.pythons[1] or ends.techniques[1]:
        raise ValueError("--calibrate compares a base with itself: leave out the options of the head, and stored runs")
    return Ends(
        revisions=(ends.revisions[0],) * 2,
        pythons=(ends.pythons[0],) * 2,
        techniques=(ends.techniques[0],) * 2,
        stored=None,
    )


def sides(ends: Ends, checkouts: Sequence[Checkout]) -> tuple[Side, Side]:
    base, head = (
        Side(name=name, python=_interpreter(name, python), checkout=checkout, techniques=chosen)
        for name, python, checkout, chosen in zip(
            ("base", "head"), ends.pythons, checkouts, ends.techniques, strict=True
        )
    )
    return base, head


def check_different(ends: Ends, two: tuple[Side, Side]) -> None:
    """Raises ValueError if base and head are the same: such a gate would pass whatever is wrong."""
    base, head = (
        (side.checkout.commit, side.checkout.dirty, _environment(side.python), set(side.techniques)) for side in two
    )
    if ends.stored is None and base == head:
        raise ValueError(
            f"base and head are the same ({two[0].checkout.describe()}, {two[0].label}, one interpreter): give "
            "--base and --head, --base-python and --head-python or --base-technique and --head-technique; "
            "--calibrate compares a base with itself"
        )


def _interpreter(side: str, python: str | None) -> str:
    """The absolute path of an interpreter, so that it stays the same in a checkout's folder. Raises ValueError if there
    is none."""
    if python is None:
        return sys.executable
    found = shutil.which(python)
    if found is None:
        raise ValueError(f"{side} python {python!r} cannot be run: give the path of an interpreter")
    return str(Path(found).absolute())


def _environment(python: str) -> tuple[Path, Path]:
    """What identifies an environment: several names for one program in one folder are the same environment."""
    return Path(python).parent, Path(python).resolve()
