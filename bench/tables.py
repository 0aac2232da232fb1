"""Texts and labels from tables: JSON lines, CSV and parquet files, folders saved by `datasets`, and data sets on the
Hugging Face hub. They are read with `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.causes import one_line

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
"""The builder of `datasets` that reads files with this suffix."""

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")
"""A data set on the hub: its owner, its name and, if it has several, a configuration."""

SAVED = ("dataset_info.json", "dataset_dict.json")
"""What marks a folder as saved by `datasets`."""

SPLIT = "train"


def is_table(path: str) -> bool:
    """Whether this is read as a table rather than as plain text."""
    there = Path(path)
    if there.is_file():
        return there.suffix in FORMATS
    if there.is_dir():
        return any((there / name).is_file() for name in SAVED)
    return bool(ID.fullmatch(path)) and not there.suffix


def rows(path: str, text_column: str | None, label_column: str | None) -> Iterator[tuple[str, str | None]]:
    """Each row's text, and its label by name if a column is given for it.

    Rows without a text or a label are left out. Raises ValueError, naming the existing columns, for a column that does
    not exist, or if the text column cannot be guessed.
    """
    found = _load(path)
    text = _column(path, found, "--text-column", text_column or _guessed(path, found))
    label = _column(path, found, "--label-column", label_column) if label_column else None
    names = getattr(found.features[label], "names", None) if label else None
    for row in found.select_columns([text, label] if label else [text]):
        if not row[text]:
            continue
        if label is None:
            yield row[text], None
        elif row[label] is not None:
            yield row[text], names[row[label]] if names else str(row[label])


def _column(path: str, found: Any, option: str, name: str) -> str:
    if name not in found.column_names:
        raise ValueError(f"{option} {name!r} is not a column of {path!r}: it has {', '.join(found.column_names)}")
    return name


def _guessed(path: str, found: Any) -> str:
    """The column "text", or else the only column of text."""
    texts = [name for name, feature in found.features.items() if getattr(feature, "dtype", None) in _TEXT]
    if "text" in texts:
        return "text"
    if len(texts) != 1:
        shown = ", ".join(found.column_names)
        raise ValueError(f"{path!r} has {len(texts)} columns of text among {shown}: say which with --text-column")
    return str(texts[0])


_TEXT = ("string", "large_string")


def _load(path: str) -> Any:
    """The rows of the training split, or of the only split. Raises ValueError, saying what to do, if there are none."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"{path!r} is read by the package datasets, which is not installed: pip install 'trainpace[data]'"
        ) from error
    datasets.disable_progress_bars()
    there = Path(path)
    try:
        if there.is_file():
            separator = {"sep": "\t"} if there.suffix == ".tsv" else {}
            found = datasets.load_dataset(FORMATS[there.suffix], data_files=str(there.resolve()), **separator)
        elif there.is_dir():
            found = datasets.load_from_disk(path)
        else:
            name, _, configuration = path.partition(":")
            found = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # Each builder fails in its own way.
        what = "could not be read" if there.exists() else "is neither a file or folder nor a data set of the hub"
        raise ValueError(f"data {path!r} {what} ({type(error).__name__}: {one_line(str(error))})") from error
    if not isinstance(found, dict):
        return found
    if SPLIT not in found and len(found) > 1:
        raise ValueError(f"data {path!r} has no split {SPLIT!r}, only {', '.join(found)}: save the one to train on")
    return found.get(SPLIT) or next(iter(found.values()))
