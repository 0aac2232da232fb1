"""What fits where, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from harness.preparation.fitting import Fit
from reports.wording import fits


def plain(found: Sequence[Fit]) -> list[dict[str, Any]]:
    """An object for each composition of each workload in each room; what is unknown is None, with the reason.

    `batch` is the workload's own, and `by_batch` has the batches of the map. `largest_batch` certainly fits, and no
    batch above `may_fit_up_to` does.
    """
    return [_row(item, batches) for group in _groups(found) for batches in (fits.batches(group),) for item in group]


def _groups(found: Sequence[Fit]) -> list[list[Fit]]:
    return [group for _, each in fits.groups(found) for group in each]


def _row(item: Fit, batches: Sequence[int]) -> dict[str, Any]:
    batch, (low_s, high_s) = item.batch, item.pace.interval_s or (None, None)
    return {
        "workload": item.entry.spec.name,
        "sequence": item.entry.sequence,
        "parameters": item.entry.parameters,
        "techniques": item.label,
        "device": item.room.host.device,
        "room": item.room.name,
        "free_bytes": item.room.free_bytes,
        "batch": batch,
        "predicted_peak_bytes": item.peak_bytes(batch),
        "fits": item.fits(batch),
        "largest_batch": item.largest_batch(),
        "may_fit_up_to": item.may_fit_up_to(),
        "predicted_step_time_s": item.pace.step_time_s,
        "predicted_step_time_low_s": low_s,
        "predicted_step_time_high_s": high_s,
        "step_time_reason": item.pace.reason,
        "tokens_per_s": item.tokens_per_s,
        "parts": dict(item.kinds) or None,
        "modules": dict(item.modules) or None,
        "changes": list(item.changes),
        "by_batch": [
            {"batch": size, "predicted_peak_bytes": peak, "fits": item.fits(size)}
            for size in batches
            if (peak := item.peak_bytes(size)) is not None
        ],
        "checked": dataclasses.asdict(item.checked) if item.checked else None,
        "reason": item.reason,
    }
