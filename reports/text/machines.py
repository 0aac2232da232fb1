"""The machines of a run side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from reports.text import listing
from reports.wording import quantity
from reports.wording.columns import REFERENCE
from results.machines import Beside


def render(found: Sequence[Beside]) -> str:
    """One row per machine; empty if there is only one."""
    return listing.aligned([row(item) for item in found]) if len(found) > 1 else ""


def row(item: Beside) -> dict[str, str]:
    """The row of a machine, by title."""
    speed = quantity.UNKNOWN if item.speed is None else quantity.ratio_interval(item.speed, item.low, item.high)
    speed = REFERENCE if item.is_reference else speed
    return {
        "machine": item.machine.machine_id,
        "hardware": f"{item.machine.device_name}, {item.machine.cpu_cores} cores",
        "heats": str(item.heats),
        "speed": speed,
        "measured by": ", ".join(item.workloads) or "no workload that both have measured",
    }
