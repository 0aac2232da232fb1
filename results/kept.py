"""The outcomes of calibrations, one line each, in append-only files in the user's data folder, by machine."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Outcome = TypeVar("Outcome")


def folder() -> Path:
    """The data folder by the XDG base directory specification. Raises ValueError if there is no home directory."""
    try:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    except RuntimeError as error:
        raise ValueError("there is no folder to keep calibrations in: set HOME or XDG_DATA_HOME") from error
    return data / "trainpace" / "calibration"


def append(name: str, outcome: DataclassInstance) -> Path:
    """Append one outcome to the file of that name, durably."""
    file = folder() / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        lines.flush()
        os.fsync(lines.fileno())
    return file


def load(name: str, make: Callable[[dict[str, Any]], Outcome], method: int) -> list[Outcome]:
    """The outcomes of one method in the file of that name; empty if there is no file."""
    file = folder() / f"{name}.jsonl"
    return read(file, make, method) if file.exists() else []


def read(file: Path, make: Callable[[dict[str, Any]], Outcome], method: int | None) -> list[Outcome]:
    """The outcomes of one method in a file; None means the latest in it. Raises ValueError if it cannot be read."""
    known = lines(file)
    try:
        wanted = method or max((fields["method"] for fields in known), default=0)
        return [make(fields) for fields in known if fields["method"] == wanted]
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(file, error) from error


def lines(file: Path) -> list[dict[str, Any]]:
    """The fields of each line. Raises ValueError if the file cannot be read."""
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise ValueError(f"calibration {str(file)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> ValueError:
    return ValueError(f"calibration {str(file)!r} cannot be read ({error}): fix it or calibrate again")
