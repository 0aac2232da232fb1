"""A gate's verdict for the terminal and for Markdown: the result, how sure it is, and what it rests on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from reports.text import listing
from reports.wording import quantity
from results.calibration import Calibration
from results.decision import Verdict
from results.gate import WORST_FIRST, Finding
from results.judgement import Judgement

TITLES = {
    Verdict.PASS: "pass: any slow-down is proven to be less than the harm",
    Verdict.REGRESSION: "regression: proven to be worse than tolerated",
    Verdict.INCONCLUSIVE: "inconclusive: neither harm nor its absence is proven",
    Verdict.INVALID: "invalid: what was measured cannot be compared",
}

MARK = "<!-- trainpace gate -->"
"""The first line of the Markdown, which identifies the comment that the next one replaces."""

MOST_NOTES = 20
"""The most notes in the Markdown."""

_FIGURE = re.compile(r"[-+]?\d[\d.]*")

MOST_CHARACTERS = 60_000
"""The most characters of the Markdown: a comment on GitHub may have 65,536."""


def text(judgement: Judgement) -> str:
    """The verdict for the terminal."""
    return "\n".join([title(judgement), *_head(judgement), "", listing.aligned(rows(judgement)), "", *notes(judgement)])


def markdown(judgement: Judgement) -> str:
    """The verdict for a comment or a summary, with as many rows, the worst first, as there is room for."""
    shown = rows(judgement)
    while len(made := _markdown(judgement, shown)) > MOST_CHARACTERS and len(shown) > 1:
        shown = shown[: len(shown) // 2]
    return made


def _markdown(judgement: Judgement, shown: Sequence[dict[str, Any]]) -> str:
    left_out = len(judgement.findings) - len(shown)
    shown_notes = notes(judgement)[:MOST_NOTES]
    more = len(notes(judgement)) - MOST_NOTES
    safe = [{name: _escaped(value) for name, value in row.items()} for row in shown]
    parts = [
        MARK,
        f"## trainpace gate: {title(judgement)}",
        "",
        *(f"- {_escaped(line)}" for line in _head(judgement)),
        "",
        listing.markdown(safe),
        *(["", f"{left_out} more workloads are not shown"] if left_out else []),
        "",
        *(f"- {_escaped(line)[:1000]}" for line in shown_notes),
        *([f"- and {more} more such notes, in gate.json"] if more > 0 else []),
    ]
    return "\n".join(parts) + "\n"


def _escaped(value: object) -> Any:
    """The text with characters escaped that mean something in Markdown or HTML."""
    if not isinstance(value, str):
        return value
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " "), ("`", "'")):
        value = value.replace(sign, safe)
    return value


def title(judgement: Judgement) -> str:
    return TITLES[judgement.verdict] + (" (advisory)" if judgement.advisory else "")


def _head(judgement: Judgement) -> list[str]:
    return [
        *(f"{name}: {description}" for name, description in judgement.sides.items()),
        f"on {judgement.device_name} ({judgement.device}), {judgement.seconds:.0f} s, seed {judgement.seed}",
    ]


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """The worst findings first: if the list is cut off, the rest matters least."""
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.verdict))


def rows(judgement: Judgement) -> list[dict[str, Any]]:
    """One row for each workload, the worst first."""
    return [_row(finding) for finding in ordered(judgement.findings)]


def _row(finding: Finding) -> dict[str, Any]:
    time, memory, limits = finding.time, finding.memory, finding.limits.time
    dropped = f" ({finding.dropped} dropped)" if finding.dropped else ""
    return {
        "workload": finding.workload,
        "verdict": finding.verdict.value,
        "time, head / base": interval(time.ratio, time.ratio_low, time.ratio_high) if time else None,
        "detectable change": f"{time.least_seen:.3f}x" if time and time.least_seen else None,
        "tolerance, harm": f"{1 + limits.tolerance:.4g}x, {1 + limits.harm:.4g}x",
        "repetitions": f"{finding.repetitions}{dropped}",
        "base step": _time(finding.base_step_time_s),
        "head step": _time(finding.head_step_time_s),
        "peak memory, head / base": interval(memory.ratio, memory.ratio_low, memory.ratio_high) if memory else None,
        "allocated, base and head": _allocated(finding),
    }


def _allocated(finding: Finding) -> str | None:
    base, head = finding.base_allocated_bytes, finding.head_allocated_bytes
    if base is None or head is None:
        return None
    return f"{base:,} B" if base == head else f"{base:,} B, {head:,} B"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else quantity.duration(seconds)


def interval(ratio: float, low: float | None, high: float | None) -> str:
    """The ratio with its interval, to a tenth of a per cent, the resolution of the margins."""
    bounds = f"[{low:.3f}, {high:.3f}]" if low is not None and high is not None else f"[{quantity.UNKNOWN}]"
    return f"{ratio:.3f}x {bounds}"


def notes(judgement: Judgement) -> list[str]:
    """What the verdict rests on apart from the times, and how far it can be trusted, in words."""
    found = [f"advisory: {judgement.advisory}"] if judgement.advisory else []
    found += calibration(judgement.calibration)
    found += [f"{finding.workload}: {reason}" for finding in ordered(judgement.findings) for reason in finding.reasons]
    found += [line for finding in judgement.findings for line in (*_between(finding), *_dropped(finding))]
    found += judgement.acknowledged
    if judgement.unseen:
        found.append(f"this machine does not show: {', '.join(judgement.unseen)}")
    return found


def _between(finding: Finding) -> list[str]:
    """A pass does not rule out that the head is slower than tolerated, by less than the harm."""
    time, limits = finding.time, finding.limits.time
    if finding.verdict is not Verdict.PASS or time is None or not (time.ratio_low or 0.0) > 1 + limits.tolerance:
        return []
    return [f"{finding.workload}: the head seems to be slower than tolerated, though by less than the harm"]


def _dropped(finding: Finding) -> list[str]:
    """How many repetitions each kind of disturbance cost. Causes that differ only in their figures are one kind."""
    kinds: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for cause, times in finding.disturbances.items():
        kinds[_FIGURE.sub("", cause)].append((cause, times))
    return [
        f"{finding.workload}: {sum(times for _, times in causes)} dropped, because {causes[0][0]}"
        + (" and the like" if len(causes) > 1 else "")
        for causes in kinds.values()
    ]


def calibration(known: Calibration) -> list[str]:
    """How reliable the gate is known to be on this machine, in words."""
    if known.false_alarm_bound is None:
        return ["known about this machine: nothing yet"]
    lines = [
        f"known about this machine: {known.false_alarms.describe()} comparisons of a base with itself were called a "
        f"regression (at most {known.false_alarm_bound:.1%}, with 95 % confidence), {known.passed.describe()} passed"
    ]
    caught = [f"{share:.0%}: {rate.describe()}" for share, rate in known.caught.items()]
    return lines + ([f"slow-downs caught: {', '.join(caught)}"] if caught else [])
