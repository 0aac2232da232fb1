"""What a run would do, or had no time for, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.registry import techniques
from bench.spec import BASELINE, Phase, Plan, Trial
from harness.preparation.forecast import Forecasts, does_not_fit
from harness.preparation.narrowing import Size
from harness.preparation.pacing import BOUNDS, Pace, is_sure
from harness.preparation.prepared import Prepared
from reports.text import predicted
from reports.wording import quantity

NOT_SURE = "it takes about as much as is free: only trying it will tell whether it fits"


Paces = Mapping[tuple[str, str], Pace]
"""By workload and label."""


def dry_run(
    prepared: Prepared,
    forecasts: Forecasts,
    paces: Paces = MappingProxyType({}),
    left_out: Mapping[str, Size] = MappingProxyType({}),
) -> str:
    """The arms with the predicted time and memory of each, the sizes left out, what is unsupported and why, and the
    estimated time."""
    plan = prepared.plan
    lines = [f"plan {plan.name} on {prepared.machine.device_name}, at least {plan.repetitions} repetitions", ""]
    for entry in prepared.entries:
        shape = f"batch {entry.batch}" + (f", sequence {entry.sequence}" if entry.sequence else "")
        lines.append(f"{entry.spec.name} ({shape}, {_millions(entry.parameters)} parameters)")
        labels = [trial.label for trial in prepared.trials(entry)]
        width = max(map(len, labels))
        for label in labels:
            pace, memory = _pace_of(paces, entry.spec.name, label), _memory_of(forecasts, entry.spec.name, label)
            lines.append(f"  {label:{width}}  {pace}{memory}")
    lines += ["", predicted.left_out(left_out)] if left_out else []
    if prepared.unsupported:
        lines += ["", "unsupported:"] + [
            f"  {workload}, {label}: {reason}" for (workload, label), reason in prepared.unsupported.items()
        ]
    if _starts_from_checkpoints(prepared):
        lines += [
            "",
            "missing checkpoints are trained first; the estimate does not include them",
        ]
    if any(pace.step_time_s for pace in paces.values()):
        lines += ["", BOUNDS]
    budget = f", and more of them until {plan.budget_s:.0f} s" if plan.budget_s else ""
    known = {key: pace.step_time_s for key, pace in paces.items() if pace.step_time_s}
    lines += ["", f"estimated time: {prepared.estimated_s(known):.0f} s for the least number of repetitions{budget}"]
    return "\n".join(lines)


def as_json(prepared: Prepared, forecasts: Forecasts, paces: Paces = MappingProxyType({})) -> list[dict[str, Any]]:
    """The same as plain data, one object per arm; what is unknown is None, with the reason."""
    rows = []
    for entry in prepared.entries:
        workload = entry.spec.name
        for trial in prepared.plan.trials(entry.spec):
            found, pace = forecasts.of(workload, trial.label), paces.get((workload, trial.label), Pace())
            low_s, high_s = pace.interval_s or (None, None)
            fits = forecasts.fits(workload, trial.label)
            cannot = prepared.unsupported.get((workload, trial.label))
            too_large = does_not_fit(forecasts, workload, trial.label) if fits is False else None
            rows.append(
                {
                    "workload": workload,
                    "techniques": trial.label,
                    "predicted_peak_bytes": found.peak_bytes,
                    "parts": found.kinds or None,
                    "ranks": found.ranks,
                    "predicted_step_time_s": pace.step_time_s,
                    "predicted_step_time_low_s": low_s,
                    "predicted_step_time_high_s": high_s,
                    "step_time_reason": pace.reason,
                    "fits": fits,
                    "reason": cannot or too_large or found.reason or (NOT_SURE if fits is None else None),
                }
            )
    return rows


def _pace_of(paces: Paces, workload: str, label: str) -> str:
    """How long an update takes, and its speed against the baseline's; empty if that was not requested."""
    pace, baseline = paces.get((workload, label)), paces.get((workload, BASELINE))
    if pace is None:
        return ""
    if pace.interval_s is None or not pace.step_time_s:
        return f"step time not known: {pace.reason}; "
    low, high = (quantity.duration(bound) for bound in pace.interval_s)
    ratio = (baseline.step_time_s or pace.step_time_s) / pace.step_time_s if baseline else 1.0
    speed = f", {quantity.ratio(ratio)}" if is_sure(ratio) else ""
    return f"{quantity.duration(pace.step_time_s)} a step ({low} to {high}{speed}); "


def _memory_of(forecasts: Forecasts, workload: str, label: str) -> str:
    """The predicted memory of an arm, with its parts, or why it is unknown."""
    found = forecasts.of(workload, label)
    if found.peak_bytes is None:
        return f"memory not known: {found.reason}"
    parts = ", ".join(
        f"{quantity.memory(size)} {kind.replace('_', ' ')}"
        for kind, size in sorted(found.kinds.items(), key=lambda item: -item[1])
        if size
    )
    parts = f"on the first of {found.ranks} ranks: {parts}" if found.ranks > 1 else parts
    if forecasts.fits(workload, label) is False:
        return f"{does_not_fit(forecasts, workload, label)} ({parts})"
    is_alone = label != BASELINE and forecasts.fits_beside(workload, label) is False
    where = ", not beside the baseline: it is measured by itself" if is_alone else ""
    return f"{quantity.memory(found.peak_bytes)}{where} ({parts})"


def unmeasured(
    trials: Sequence[Trial], plan: Plan, folder: Path, put_off: Mapping[tuple[str, str], float] = MappingProxyType({})
) -> str:
    """Which arms the budget left no time for, and the command that measures them. `put_off` has, by workload and label,
    the seconds that the first repetition of an arm takes at least."""
    names = {trial.workload.name: [] for trial in trials}  # type: dict[str, list[str]]
    for trial in trials:
        long_s = put_off.get((trial.workload.name, trial.label))
        slow = f" (its first repetition takes {quantity.duration(long_s, 2)} or more)" if long_s else ""
        names[trial.workload.name].append(trial.label + slow)
    missing = "; ".join(f"{workload}: {', '.join(labels)}" for workload, labels in names.items())
    return (
        f"\nThe budget of {plan.budget_s:.0f} s left no time for {missing}. To measure them: "
        f"trainpace run --resume {folder}"
    )


def _starts_from_checkpoints(prepared: Prepared) -> bool:
    known = techniques()
    return any(
        entry.spec.phase is Phase.FINETUNE or any(known[name].pretrained for name in trial.techniques)
        for entry in prepared.entries
        for trial in prepared.trials(entry)
    )


def _millions(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:.1f} M"
