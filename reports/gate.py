"""A gate's verdict for the terminal and for Markdown: what came out, how surely, and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports import listing, quantity
from results.calibration import Calibration
from results.decision import Verdict
from results.gate import Finding
from results.judgement import Judgement

TITLES = {
    Verdict.PASS: "pass: proven to do no harm",
    Verdict.REGRESSION: "regression: proven to be worse than tolerated",
    Verdict.INCONCLUSIVE: "inconclusive: neither harm nor its absence is proven",
    Verdict.INVALID: "invalid: what was measured cannot be compared",
}

ORDER = (Verdict.REGRESSION, Verdict.INVALID, Verdict.INCONCLUSIVE, Verdict.PASS)
"""Changed rows first: where a reader is cut off, the rest matters least."""


def text(judgement: Judgement) -> str:
    """For the terminal."""
    return "\n".join([title(judgement), *_head(judgement), "", listing.aligned(rows(judgement)), *_notes(judgement)])


def markdown(judgement: Judgement) -> str:
    """For a comment or a summary. Its first line marks it, so that the next one can take its place."""
    head = "\n".join(f"- {line}" for line in _head(judgement))
    notes = "\n".join(f"- {line}" for line in _notes(judgement))
    table = listing.markdown(rows(judgement))
    return f"{MARK}\n## trainpace gate: {title(judgement)}\n\n{head}\n\n{table}\n\n{notes}\n"


MARK = "<!-- trainpace gate -->"


def title(judgement: Judgement) -> str:
    advisory = f" (advisory: {judgement.advisory})" if judgement.advisory else ""
    return TITLES[judgement.verdict] + advisory


def _head(judgement: Judgement) -> list[str]:
    return [
        *(f"{name}: {description}" for name, description in judgement.sides.items()),
        f"on {judgement.device_name} ({judgement.device}), {judgement.seconds:.0f} s, seed {judgement.seed}",
    ]


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: ORDER.index(finding.verdict))


def rows(judgement: Judgement) -> list[dict[str, Any]]:
    """One row for each workload, the worst first."""
    return [_row(finding) for finding in ordered(judgement.findings)]


def _row(finding: Finding) -> dict[str, Any]:
    time, memory = finding.time, finding.memory
    return {
        "workload": finding.workload,
        "verdict": finding.verdict.value,
        "time, head / base": _interval(time.ratio, time.ratio_low, time.ratio_high) if time else None,
        "tolerated": f"{1 + finding.limits.time.tolerance:.3g}x",
        "harm": f"{1 + finding.limits.time.harm:.3g}x",
        "smallest regression seen": f"{time.least_seen:.3f}x" if time and time.least_seen else None,
        "repetitions": finding.repetitions,
        "dropped": finding.dropped,
        "base step": _time(finding.base_step_time_s),
        "head step": _time(finding.head_step_time_s),
        "peak memory, head / base": _interval(memory.ratio, memory.ratio_low, memory.ratio_high) if memory else None,
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else quantity.duration(seconds)


def _interval(ratio: float, low: float | None, high: float | None) -> str:
    bounds = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else " [unknown]"
    return f"{ratio:.3f}x{bounds}"


def _notes(judgement: Judgement) -> list[str]:
    notes = [f"{finding.workload}: {reason}" for finding in ordered(judgement.findings) for reason in finding.reasons]
    notes += [
        f"{finding.workload}: dropped {times} because {cause}"
        for finding in judgement.findings
        for cause, times in finding.disturbances.items()
    ]
    if judgement.unseen:
        notes.append(f"not visible on this machine: {', '.join(judgement.unseen)}")
    return [*notes, *calibration(judgement.calibration)]


def calibration(known: Calibration) -> list[str]:
    """What the gate is known to do here, in words."""
    if known.false_alarm_bound is None:
        return ["known of this machine: nothing yet"]
    lines = [
        f"known of this machine: {known.false_alarms.describe()} comparisons of a base with itself were called a "
        f"regression (at most {known.false_alarm_bound:.1%}, 95 % confidence), {known.passed.describe()} passed"
    ]
    caught = [f"{share:.0%}: {rate.describe()}" for share, rate in known.caught.items()]
    return lines + ([f"slow-downs caught: {'; '.join(caught)}"] if caught else [])
