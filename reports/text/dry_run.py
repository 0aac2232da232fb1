"""What a run would do, and what it had no time for, in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.registry import techniques
from bench.spec import Phase, Plan, Trial
from harness.preparation.prepared import Prepared


def dry_run(prepared: Prepared) -> str:
    """The arms, what is unsupported and why, and the estimated time."""
    plan = prepared.plan
    lines = [f"plan {plan.name} on {prepared.machine.device_name}, at least {plan.repetitions} repetitions", ""]
    for entry in prepared.entries:
        shape = f"batch {entry.batch}" + (f", sequence {entry.sequence}" if entry.sequence else "")
        lines.append(f"{entry.spec.name} ({shape}, {_millions(entry.parameters)} parameters)")
        lines += [f"  {trial.label}" for trial in prepared.trials(entry)]
    if prepared.unsupported:
        lines += ["", "unsupported:"] + [
            f"  {workload}, {label}: {reason}" for (workload, label), reason in prepared.unsupported.items()
        ]
    if _starts_from_checkpoints(prepared):
        lines += [
            "",
            "first of all, checkpoints are trained that no earlier run has left: the estimate is without them",
        ]
    budget = f", and further repetitions until {plan.budget_s:.0f} s" if plan.budget_s else ""
    lines += ["", f"estimated time: {prepared.estimated_s():.0f} s for the least repetitions{budget}"]
    return "\n".join(lines)


def unmeasured(trials: Sequence[Trial], plan: Plan, folder: Path) -> str:
    """Which arms the budget has left no time for, and how they are measured after all."""
    names = {trial.workload.name: [] for trial in trials}  # type: dict[str, list[str]]
    for trial in trials:
        names[trial.workload.name].append(trial.label)
    missing = "; ".join(f"{workload}: {', '.join(labels)}" for workload, labels in names.items())
    return (
        f"\nThe budget of {plan.budget_s:.0f} s left no time for {missing}. They are measured by: "
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
