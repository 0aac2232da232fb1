"""Comparisons for other programs: JSON and CSV with exactly the fields of Comparison.

Unknown is null in JSON and empty in CSV.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from reports.formats import rows
from results.compare import Comparison
from results.metrics import METRICS

_ALL = [field.name for field in dataclasses.fields(Comparison)]
FIELDS = tuple(sorted(_ALL, key=METRICS.__contains__))
"""First what the arm is and how it compares, then its metrics."""


def to_json(comparisons: Sequence[Comparison]) -> str:
    """A list of objects, one per comparison."""
    return rows.to_json([plain(item) for item in comparisons])


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """A line of field names, then one line per comparison."""
    return rows.to_csv(FIELDS, [plain(item) for item in comparisons])


def plain(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON types. Values that are not finite become null, because JSON cannot represent them."""
    return {name: rows.finite(getattr(comparison, name)) for name in FIELDS}
