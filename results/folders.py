"""Where runs lie, from file names alone: looking for runs must not import what reads them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PART, WHOLE = "part-", "run-"
"""Prefixes of the names of record files: with one record, and with all records of a finished run."""


def is_url(text: str) -> bool:
    return "://" in text


def here(text: str) -> Path:
    """The local folder for a path, or for a URL, whose records are fetched first. Raises OSError if that fails, and
    ValueError for a URL of an unknown kind."""
    if not is_url(text):
        return Path(text)
    from results.remote import Remote

    return Remote(text).pull()


def record_files(folder: Path) -> list[os.DirEntry[str]]:
    """The files that hold a run's records, sorted by name; none if there is no run."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder / "records") as found:
        return sorted(
            (item for item in found if item.name.startswith((PART, WHOLE)) and item.name.endswith(".parquet")),
            key=lambda item: item.name,
        )
    return []


def has_records(folder: Path) -> bool:
    return bool(record_files(folder))


def runs_in(folder: Path) -> list[Path]:
    """The folder itself if it is a run, else the runs in it. Raises ValueError if there are none."""
    if has_records(folder):
        return [folder]
    found = sorted(item for item in folder.iterdir() if has_records(item)) if folder.is_dir() else []
    if not found:
        raise ValueError(f"there is no run in {str(folder)!r}: give folders that `trainpace run` made")
    return found
