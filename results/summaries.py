"""Summaries of runs in the user's cache, so that many runs can be compared without reading their steps again.

A summary holds for record files of the same names, sizes and times, and for the same sources of trainpace that it
depends on; otherwise it is made again. It is never stored with the records: whoever passes on a run passes on
measurements, not conclusions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bench import plain
from bench.causes import DamagedRecords
from bench.corpus import cache_folder, write_atomically
from harness import record
from harness.record import Machine, Record
from results.folders import record_files
from results.statistics import Moments
from results.summary import Conditions, Summary
from results.summary import summary as of

if TYPE_CHECKING:
    from results.runs import Told

SOURCES = (*sorted(Path(__file__).parent.glob("*.py")), Path(record.__file__))
"""What a summary is made by: this package, and what a record is."""

Made = TypeVar("Made")


def summary(folder: Path) -> Summary:
    """The summary of the run in a folder. Raises as results.store.read does."""
    return _known(
        folder,
        "summary",
        lambda records, machine: dataclasses.asdict(of(records, machine.git_commit)),
        _read,
    )


def _read(data: dict[str, Any]) -> Summary:
    paces = {
        workload: {techniques: Moments(*values) for techniques, values in own.items()}
        for workload, own in data["paces"].items()
    }
    return Summary(**data | {"conditions": Conditions(**data["conditions"]), "paces": paces})


def told(folder: Path) -> Told:
    """The summary with the comparisons of the run's arms."""
    from results.compare import Comparison, compare
    from results.runs import Told

    comparisons = _known(
        folder,
        "arms",
        lambda records, machine: [dataclasses.asdict(row) for row in compare(records, machine)],
        lambda data: [plain.read(Comparison, row) for row in data],
    )
    return Told(summary=summary(folder), comparisons=comparisons)


def _known(
    folder: Path, kind: str, make: Callable[[Sequence[Record], Machine], Any], read: Callable[[Any], Made]
) -> Made:
    """What the cache has for a run; otherwise it is made from the records, and cached if possible."""
    # The name is taken before anything is read: it must not cover records that arrive in the meantime.
    file = _file(folder, kind)
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        return read(json.loads(file.read_bytes()))
    from results import store  # Cached results are read without parquet.

    with warnings.catch_warnings(record=True) as damaged:
        warnings.simplefilter("always", DamagedRecords)
        text = json.dumps(make(store.read(folder), store.read_machine(folder)))
    for warning in damaged:
        warnings.warn(warning.message, warning.category, stacklevel=3)
    if not damaged:  # Otherwise the next reader would get no warning.
        with contextlib.suppress(OSError):
            write_atomically(file, functools.partial(_write, text))
    return read(json.loads(text))


def _write(text: str, name: str) -> None:
    Path(name).write_text(text, encoding="utf-8")


def _file(folder: Path, kind: str) -> Path:
    return _kept() / f"{_identity(folder)}-{kind}.json"


@functools.cache
def _kept() -> Path:
    """The cache folder for these sources."""
    own = hashlib.sha256()
    for file in SOURCES:
        own.update(file.read_bytes())
    return cache_folder() / "summaries" / own.hexdigest()[:16]


def _identity(folder: Path) -> str:
    """A hash of the names, sizes and times of a run's record files."""
    found = []
    for file in record_files(folder):
        status = file.stat()
        found.append((file.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([str(folder.resolve()), found]).encode()).hexdigest()[:32]
