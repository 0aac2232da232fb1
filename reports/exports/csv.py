"""Two tables: arms.csv with a line for each arm, and steps.csv with a line for each timed step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.exports.arms import Arm
from reports.formats import rows


def write(arms: Sequence[Arm], folder: Path) -> None:
    """Write both tables into a folder; unknown values are empty."""
    told = [{**arm.config, **arm.metrics} for arm in arms]
    names = list(dict.fromkeys(name for row in told for name in row))
    (folder / "arms.csv").write_text(rows.to_csv(names, [dict.fromkeys(names) | row for row in told]), encoding="utf-8")
    steps = [
        _step(arm, process, index, time_s)
        for arm in arms
        for process, times_s in arm.step_times_s.items()
        for index, time_s in enumerate(times_s)
    ]
    columns = ("workload", "techniques", "process", "step", "step_time_s")
    (folder / "steps.csv").write_text(rows.to_csv(columns, steps), encoding="utf-8")


def _step(arm: Arm, process: str, index: int, time_s: float) -> dict[str, Any]:
    return {
        "workload": arm.config["workload"],
        "techniques": arm.config["techniques"],
        "process": process,
        "step": index,
        "step_time_s": time_s,
    }
