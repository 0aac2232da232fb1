"""Comparisons for other programs: JSON and CSV with exactly the fields of Comparison.

Unknown is null in JSON and empty in CSV.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from results.compare import Comparison
from results.metrics import METRICS

_ALL = [field.name for field in dataclasses.fields(Comparison)]
FIELDS = tuple(sorted(_ALL, key=METRICS.__contains__))
"""What an arm is and how it compares comes first, then its metrics."""


def to_json(comparisons: Sequence[Comparison]) -> str:
    """A list of objects, one a comparison."""
    return json.dumps([plain(item) for item in comparisons], indent=2, ensure_ascii=False, allow_nan=False)


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """One line a comparison below a line of field names."""
    written = io.StringIO()
    writer = csv.DictWriter(written, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(item) for item in comparisons)
    return written.getvalue()


def plain(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON's own types. What is not finite is not known either: JSON has no word for it."""
    return {name: finite(getattr(comparison, name)) for name in FIELDS}


def finite(value: Any) -> Any:
    """`value` with every float that is not finite replaced by None, through lists and dictionaries."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
