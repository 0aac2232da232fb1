"""How sharp are a run's answers? Reads the output of `trainpace compare RUN --format json`, of any version.

    python -m tests.sharpness RUN.json...

Prints for each file: the arms that ended ok, those with an interval, the median half-widths of the single intervals and
of the bounds for all arms together (if the version has them), and how many arms are not known to be faster, slower or
the same. An arm without an interval counts as infinitely wide.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.spec import BASELINE

Row = dict[str, Any]


def half_widths(rows: list[Row], low: str, high: str) -> list[float]:
    """Half the width of the bounds on a logarithmic scale; infinite without bounds."""
    return [
        math.log(row[high] / row[low]) / 2 if row.get(low) is not None and row.get(high) is not None else math.inf
        for row in rows
    ]


def is_open(row: Row) -> bool:
    if row.get("verdict") is not None:
        return bool(row["verdict"] == "unclear")
    low, high = row.get("speedup_low"), row.get("speedup_high")
    return low is None or high is None or low <= 1 <= high


def sharpness(rows: list[Row]) -> str:
    arms = [row for row in rows if row["status"] == "ok" and row["techniques"] != BASELINE]
    single = half_widths(arms, "speedup_low", "speedup_high")
    together = half_widths(arms, "claim_low", "claim_high")
    known = [width for width in single if math.isfinite(width)]
    parts = [
        f"{len(arms)} arms, {len(known)} with an interval",
        f"single intervals {_shown(single)} (of those there are {_shown(known)})",
        f"bounds for all {_shown(together)}",
        f"{sum(map(is_open, arms))} not yet known",
    ]
    return "; ".join(parts)


def _shown(widths: list[float]) -> str:
    middle = statistics.median(widths) if widths else math.inf
    return f"{middle:.1%}" if math.isfinite(middle) else "unknown"


def main() -> None:
    for name in sys.argv[1:]:
        print(f"{name}: {sharpness(json.loads(Path(name).read_text(encoding='utf-8')))}")


if __name__ == "__main__":
    main()
