"""Where runs lie, told from names alone: who only looks for them imports nothing that reads them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PART, WHOLE = "part-", "run-"
"""How the names of files of records begin: of one record, and of all of a run that has ended."""


def is_url(text: str) -> bool:
    return "://" in text


def here(text: str) -> Path:
    """The folder of what is named by a path, or by a URL, whose records are then fetched. Raises OSError where that
    fails, and ValueError for a URL that nothing knows."""
    if not is_url(text):
        return Path(text)
    from results.remote import Remote

    return Remote(text).pull()


def record_files(folder: Path) -> list[os.DirEntry[str]]:
    """The files that hold a run's records, in order of name; none where there is no run."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder / "records") as found:
        return sorted(
            (item for item in found if item.name.startswith((PART, WHOLE)) and item.name.endswith(".parquet")),
            key=lambda item: item.name,
        )
    return []


def has_records(folder: Path) -> bool:
    return bool(record_files(folder))


def runs_in(folder: Path) -> list[Path]:
    """The folder itself if it is a run, or else the runs that lie in it. Raises ValueError where there is none."""
    if has_records(folder):
        return [folder]
    found = sorted(item for item in folder.iterdir() if has_records(item)) if folder.is_dir() else []
    if not found:
        raise ValueError(f"there is no run in {str(folder)!r}: give folders that `trainpace run` made")
    return found
