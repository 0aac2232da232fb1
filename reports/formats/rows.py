"""Rows for other programs, as JSON and CSV. Unknown and non-finite values are null in JSON and empty in CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def to_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """A list of objects."""
    return json.dumps([finite(dict(row)) for row in rows], indent=2, ensure_ascii=False, allow_nan=False, default=str)


def to_csv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A line of names, then a line for each row."""
    written = io.StringIO()
    writer = csv.DictWriter(written, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(finite(dict(row)) for row in rows)
    return written.getvalue()


def finite(value: Any) -> Any:
    """`value` with every non-finite float replaced by None, also within lists and dictionaries."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
