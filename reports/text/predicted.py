"""Predictions in words: before a run the memory that its arms will take, and after it how far off that was."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from harness.preparation.fitting import Fit
from harness.preparation.forecast import Forecasts, does_not_fit
from harness.preparation.narrowing import Size
from harness.preparation.prepared import Prepared
from reports.wording import quantity
from results.compare import Comparison


def memory(prepared: Prepared, forecasts: Forecasts) -> str:
    """One line per workload: the memory of its arms, those for which it is unknown, and the free memory. Arms that do
    not fit follow, one per line."""
    lines = []
    for entry in prepared.entries:
        workload = entry.spec.name
        labels = [trial.label for trial in prepared.trials(entry)]
        sizes = forecasts.device_bytes(workload)
        unknown = [label for label in labels if label not in sizes]
        parts = [_range(sizes)] if sizes else []
        parts += [f"not known for {len(unknown)} ({quantity.several(unknown, 3)})"] if unknown else []
        parts += [f"{quantity.memory(forecasts.free_bytes)} free"]
        lines.append(f"{workload}: predicted memory of tensors: {'; '.join(parts)}")
        lines += [
            f"  {label} {does_not_fit(forecasts, workload, label)}"
            for label in labels
            if forecasts.fits(workload, label) is False
        ]
    return "\n".join(lines)


def _range(sizes: dict[str, int]) -> str:
    least, most = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    return f"{quantity.memory(sizes[least])} {least} to {quantity.memory(sizes[most])} {most}"


def tell_timing(count: int) -> None:
    """Say on standard error why it takes a while, and that it does so only once."""
    print(f"timing {count} operators, once for this machine; run nothing else meanwhile ..", file=sys.stderr)


def tell_check(found: Fit) -> None:
    """Say on standard error what is trained to check a prediction: as large a batch as fits can take minutes."""
    print(f"checking {found.entry.spec.model} under {found.label}: training at the edge ..", file=sys.stderr)


def left_out(sizes: Mapping[str, Size]) -> str:
    """One line per workload that is not measured, with the prediction for it."""
    return "\n".join(f"{workload} is not measured: {_told(size)}" for workload, size in sizes.items())


def _told(size: Size) -> str:
    speedups = ", ".join(
        f"{label} {'not known' if value is None else quantity.ratio(value)}" for label, value in size.speedups.items()
    )
    if not size.bearable:
        return f"its steps take too long here; predicted: {speedups}. Name it with --model to measure it"
    return f"predicted: {speedups}, and nothing begins to pay there"


WITHIN = 0.005
"""Predictions of memory that are further off than this share are named."""


def errors(comparisons: Sequence[Comparison]) -> str | None:
    """How far off the predictions of memory were, by composition; None if none can be checked."""
    known = [
        (item.predicted_peak_bytes / item.allocated_peak_bytes - 1, item)
        for item in comparisons
        if item.predicted_peak_bytes and item.allocated_peak_bytes
    ]
    if not known:
        return None
    off = sorted((pair for pair in known if abs(pair[0]) > WITHIN), key=lambda pair: -abs(pair[0]))
    farther = [f"{item.techniques} on {item.workload} by {quantity.signed(100 * error)} %" for error, item in off]
    near = f"{len(known) - len(off)} of {len(known)} arms are within {quantity.percent(100 * WITHIN)}"
    rest = f"; farther off: {quantity.several(farther, 6)}" if farther else ""
    return f"Predicted memory against counted memory: {near}{rest}."
