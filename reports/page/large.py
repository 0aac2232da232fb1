"""The report of a run with very many arms: a summary of each workload, and all arms, a hundred at a time.

The page contains every arm, compressed; the browser decompresses, sorts, filters and pages them. There are no charts,
because charts of so many arms show nothing.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from bench.spec import Plan
from harness.record import Machine
from reports.page.templates import asset, environment
from reports.wording import sentences, view
from reports.wording.columns import COLUMNS, Column, speedup, text, value
from reports.wording.printable import printable
from results.compare import Comparison

MANY = 1000
"""A run with more arms than this gets such a page."""

AT_ONCE = 100

OUTCOMES = ("faster", "slower", "same", "unclear")


def render(comparisons: Sequence[Comparison], machine: Machine, plan: Plan, run: str) -> str:
    """The whole page."""
    shown = [
        column for column in COLUMNS if column.main and any(value(column, item) is not None for item in comparisons)
    ]
    best_first = sorted(comparisons, key=lambda item: -(item.claim_low or 0.0))
    rows = [_row(item, shown) for item in best_first]
    packed = gzip.compress(json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode(), mtime=0)
    return (
        environment()
        .get_template("large.html.j2")
        .render(
            style=Markup(asset("style.css")),
            script=Markup(asset("large.js")),
            run=run,
            plan=plan,
            machine=machine,
            headline=sentences.headline(comparisons),
            workloads=[_workload(name, arms) for name, arms in view.by_workload(comparisons).items()],
            columns=shown,
            first=rows[:AT_ONCE],
            arms=len(rows),
            at_once=AT_ONCE,
            outcomes=sorted({view.outcome(item) for item in comparisons}),
            packed=Markup(base64.b64encode(packed).decode()),
        )
    )


def _row(item: Comparison, shown: Sequence[Column]) -> dict[str, Any]:
    """The data of an arm for the browser: for each column the text, and the value to sort by."""
    return {
        "workload": printable(item.workload),
        "techniques": printable(item.techniques),
        "outcome": view.outcome(item),
        "note": printable("; ".join(filter(None, (view.differs(item), item.reason)))),
        "texts": [text(column, item) for column in shown],
        "values": [_rounded(value(column, item)) for column in shown],
    }


def _rounded(number: float | None) -> float | None:
    """Rounded to six digits: further digits do not matter, and would compress badly."""
    return None if number is None else float(f"{number:.6g}")


def _workload(name: str, arms: Sequence[Comparison]) -> dict[str, Any]:
    counted = Counter(view.outcome(arm) for arm in arms)
    best = max((arm for arm in arms if arm.claim_low is not None), key=lambda arm: arm.claim_low or 0.0, default=None)
    return {
        "name": printable(name),
        "arms": len(arms),
        "outcomes": [counted[outcome] for outcome in OUTCOMES],
        "others": sum(counted.values()) - sum(counted[outcome] for outcome in OUTCOMES) - counted["baseline"],
        "best": f"{best.techniques} {speedup(best)}" if best and (best.claim_low or 0.0) > 1 else "none",
    }
