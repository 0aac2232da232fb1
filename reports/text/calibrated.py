"""How often gates and runs are known to be wrong: the tables behind the lines that they print."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from reports.text import listing
from reports.wording import sentences
from results.calibration import Outcome, calibrated, covers
from results.decision import Verdict
from results.idle import IdleHeat, error_rate


def of_gates(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a table with a row for each workload and slow-down, and the totals."""
    groups: dict[tuple[str, float], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.workload, outcome.slowdown].append(outcome)
    rows = [_row(workload, share, found) for (workload, share), found in sorted(groups.items())]
    return "\n".join([listing.markdown(rows), "", *(f"- {line}" for line in totals(outcomes))])


def of_runs(heats: Sequence[IdleHeat]) -> str:
    """Markdown: a table with a row for each workload, and the total error rate."""
    groups: dict[str, list[IdleHeat]] = defaultdict(list)
    for heat in heats:
        groups[heat.workload].append(heat)
    rows = [_run_row(workload, found) for workload, found in sorted(groups.items())]
    return "\n".join([listing.markdown(rows), "", sentences.error_rate(error_rate(heats))])


def _run_row(workload: str, heats: Sequence[IdleHeat]) -> dict[str, Any]:
    known = error_rate(heats)
    assert known is not None
    return {
        "workload": workload,
        "heats": len(heats),
        "repetitions, median": f"{statistics.median(heat.repetitions for heat in heats):g}",
        "dropped": sum(heat.dropped for heat in heats),
        "single intervals that hold 1": known.held.describe(),
        "heats with a false direction": known.false_heats.describe(),
        "half-width of a bound, median and largest": _shares([heat.claim_width for heat in heats]),
        "step over a bare loop's, median": None if known.step_bias is None else f"{known.step_bias:.3f}x",
        "seconds, median": f"{statistics.median(heat.seconds for heat in heats):.0f}",
    }


def _shares(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1%}, {max(values):.1%}"


def _row(workload: str, share: float, found: Sequence[Outcome]) -> dict[str, Any]:
    verdicts = [outcome.verdict for outcome in found]
    times_s = [outcome.seconds for outcome in found]
    spreads = [statistics.stdev(outcome.log_ratios) for outcome in found if len(outcome.log_ratios) > 1]
    bounded = [outcome for outcome in found if outcome.ratio_low is not None and outcome.ratio_high is not None]
    return {
        "workload": workload,
        "added slow-down": f"{share:.1%}",
        "measured slow-down": f"{statistics.fmean(outcome.held_share for outcome in found):.2%}",
        "gates": len(found),
        **{verdict.value: verdicts.count(verdict) for verdict in Verdict},
        "estimate, median": _ratio([outcome.ratio for outcome in found if outcome.ratio is not None]),
        "truth in the interval": f"{sum(map(covers, bounded))} of {len(bounded)}",
        "repetitions, median": f"{statistics.median(outcome.repetitions for outcome in found):g}",
        "dropped": sum(outcome.dropped for outcome in found),
        "spread of a repetition": f"{statistics.median(spreads):.1%}" if spreads else None,
        "seconds, median and largest": f"{statistics.median(times_s):.0f}, {max(times_s):.0f}",
    }


def _ratio(ratios: Sequence[float]) -> str | None:
    return f"{statistics.median(ratios):.4f}x" if ratios else None


def totals(outcomes: Sequence[Outcome]) -> list[str]:
    """The totals over all outcomes, in words."""
    known = calibrated(outcomes)
    bound = "unknown" if known.false_alarm_bound is None else f"at most {known.false_alarm_bound:.1%}"
    covered = known.covered
    share = f" ({covered.seen / covered.tries:.0%})" if covered.tries else ""
    lines = []
    if known.passed.tries:
        lines += [
            f"false regressions: {known.false_alarms.describe()} ({bound}, with 95 % confidence)",
            f"base against itself: {known.passed.describe()} passed, {known.invalid.describe()} invalid",
        ]
    lines += [f"slow-downs of {size:.0%} caught: {rate.describe()}" for size, rate in known.caught.items()]
    lines.append(f"95 % intervals that hold the truth: {covered.describe()}{share}")
    if known.above_p is not None:
        lines.append(
            f"repetitions of a base with itself in which the head was slower: {known.above.describe()} "
            f"(binomial p {known.above_p:.2f})"
        )
    if known.alike_p is not None:
        lines.append(
            f"consecutive repetitions in which the same side was slower: {known.alike.describe()} "
            f"(binomial p {known.alike_p:.2f})"
        )
    return lines
