"""The report of a run of very many arms: what each workload comes to, and all arms, a hundred at a time.

Every arm is in the page, packed; a browser unpacks, sorts, filters and pages them. Charts of so many show nothing.
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
"""More arms than that are shown on such a page."""

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
    """What a browser is told of an arm: of each column the text, and what it is sorted by."""
    return {
        "workload": printable(item.workload),
        "techniques": printable(item.techniques),
        "outcome": view.outcome(item),
        "note": printable("; ".join(filter(None, (view.differs(item), item.reason)))),
        "texts": [text(column, item) for column in shown],
        "values": [_rounded(value(column, item)) for column in shown],
    }


def _rounded(number: float | None) -> float | None:
    """To six digits: nothing more is told apart, and nothing less is packed well."""
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
