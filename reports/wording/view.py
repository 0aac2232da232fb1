"""Comparisons as plain rows and sentences. Every output format shows these; none formats a number itself."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.facts import Change
from bench.spec import BASELINE, Plan
from harness.record import Machine, Record, Status
from reports.wording import quantity
from reports.wording.advice import Warning, warnings
from reports.wording.columns import COLUMNS, OUTCOME_WORDS, text, value, why_unknown
from results.compare import Comparison, Verdict

__all__ = ["Cell", "Excluded", "Row", "Warning", "excluded", "outcome", "rows", "warnings"]


NO_TIME = "the run had no time left for it: measure it with `trainpace run --resume` and the run's folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One figure as shown. `value` is the raw figure; None is unknown, and `why` says why."""

    name: str
    title: str
    caption: str
    text: str
    value: float | None
    why: str | None
    main: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One arm as shown.

    `differs` says how its training differs in more than rounding. `notes` are phrases: the method, the smallest
    detectable change, and when its longer first step is earned back.
    """

    arm: str
    workload: str
    techniques: str
    captions: tuple[str, ...]
    outcome: str
    differs: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    reason: str | None
    command: str

    @property
    def qualified(self) -> str:
        """The outcome, with what differs: `faster, other architecture`."""
        return ", ".join(filter(None, (self.outcome, self.differs)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """The arms of one composition that are not ranked, for the same reason."""

    outcome: str
    techniques: str
    workloads: tuple[str, ...]
    reason: str


def arm_name(item: Comparison | Record) -> str:
    """The name of an arm. A baseline that is not in float32 is named by its number format."""
    if item.techniques != BASELINE or item.compute in (None, "float32"):
        return item.techniques
    return f"unmodified {item.compute}"


def arm_id(item: Comparison | Record) -> str:
    """A name for the arm that is unique on a page."""
    return f"{item.workload} {item.techniques}"


def is_ranked(comparison: Comparison) -> bool:
    """Whether the arm is ranked: it ended ok every time, and was compared with its baseline."""
    return comparison.status is Status.OK and comparison.verdict is not None and comparison.techniques != BASELINE


def is_drawn(comparison: Comparison) -> bool:
    """Whether the arm is in charts: it is ranked, or a baseline that ended ok."""
    is_baseline = comparison.techniques == BASELINE and comparison.status is Status.OK
    return is_ranked(comparison) or is_baseline


def outcome(comparison: Comparison) -> str:
    """The outcome of the arm in a word or two: its verdict, `baseline`, or why it has no verdict."""
    if comparison.status is not Status.OK:
        return OUTCOME_WORDS[comparison.status]
    if comparison.techniques == BASELINE:
        return "baseline"
    return comparison.verdict or "not compared"


def differs(comparison: Comparison) -> str:
    """How the arm's training differs from the baseline's, such as `other architecture`; empty if only in rounding.

    Being faster at a different task is not the same as being faster, so an outcome is never shown without this.
    """
    changes = [change for change in comparison.changes if change != Change.NUMERICS.value]
    return f"other {quantity.several(changes, 9)}" if changes else ""


def qualified(comparison: Comparison) -> str:
    """The outcome, with what differs: `faster, other architecture`."""
    return ", ".join(filter(None, (outcome(comparison), differs(comparison))))


INTERVALS = (
    "intervals: 95 %, each for one arm by itself; outcomes follow wider bounds, which hold for all arms of a workload "
    "together with 95 % (Sidak)"
)
"""The note below a table of speed-ups."""

Item = TypeVar("Item", Comparison, Record)


def by_workload(items: Iterable[Item]) -> dict[str, list[Item]]:
    """The comparisons or records of each workload, in their order of appearance."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.workload].append(item)
    return dict(groups)


def fastest_first(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """The ranked arms by speed-up, the largest first."""
    return sorted(filter(is_ranked, comparisons), key=lambda item: -(item.speedup or 0))


def rows(
    comparisons: Sequence[Comparison],
    records: Sequence[Record] = (),
    machine: Machine | None = None,
    captions: Mapping[str, str] | None = None,
) -> list[Row]:
    """One row for each comparison, in the given order. `captions` has the one-line caption of each technique."""
    arms: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        arms[record.workload, record.techniques].append(record)
    baselines = {item.workload: item for item in comparisons if item.techniques == BASELINE}
    return [
        Row(
            arm=arm_id(item),
            workload=item.workload,
            techniques=arm_name(item),
            captions=tuple((captions or {})[name] for name in item.techniques.split("+") if name in (captions or {})),
            outcome=outcome(item),
            differs=differs(item),
            cells=_cells(item, arms[item.workload, item.techniques], machine),
            notes=notes(item, baselines.get(item.workload)),
            reason=None if is_ranked(item) or outcome(item) == "baseline" else why_not_ranked(item),
            command=item.command,
        )
        for item in comparisons
    ]


def _cells(comparison: Comparison, records: Sequence[Record], machine: Machine | None) -> tuple[Cell, ...]:
    shown = []
    for column in COLUMNS:
        written = text(column, comparison)
        why = why_unknown(column, comparison, records, machine) if written == quantity.UNKNOWN else None
        shown.append(
            Cell(
                name=column.name,
                title=column.title,
                caption=column.caption,
                text=written,
                value=value(column, comparison),
                why=why,
                main=column.main,
            )
        )
    return tuple(shown)


def notes(comparison: Comparison, baseline: Comparison | None) -> tuple[str, ...]:
    """The notes on a speed-up: its method, the smallest detectable effect, and what its first step costs."""
    if not is_ranked(comparison):
        return ()
    effect = comparison.smallest_effect
    seen = f"could detect a change of {quantity.share(effect)}" if quantity.known(effect) and effect is not None else ""
    alone = "measured by itself, with no other arm in memory, and not interleaved" if comparison.alone else ""
    payback = payback_steps(comparison, baseline) if baseline else None
    earned = f"longer first step earned back after about {quantity.significant(payback, 2)} steps" if payback else ""
    return tuple(filter(None, (comparison.method, alone, seen, earned)))


def payback_steps(comparison: Comparison, baseline: Comparison) -> float | None:
    """Steps until a faster arm has made up for its longer first step; None if it is not faster or starts no later."""
    times = (comparison.first_step_s, baseline.first_step_s, comparison.step_time_s, baseline.step_time_s)
    first, first_plain, step, step_plain = times
    if comparison.verdict is not Verdict.FASTER:
        return None
    if first is None or first_plain is None or step is None or step_plain is None:
        return None
    return (first - first_plain) / (step_plain - step) if first > first_plain and step < step_plain else None


def why_not_ranked(comparison: Comparison) -> str:
    """Why an arm that is neither ranked nor the baseline is not."""
    unsaid = "no reason was recorded"
    if comparison.status is Status.OK:
        unsaid = "no repetition of the baseline ended ok beside this arm's"
    return comparison.reason or unsaid


def excluded(comparisons: Iterable[Comparison]) -> list[Excluded]:
    """The arms that are not ranked, grouped over workloads if the composition and the reason are the same."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for item in comparisons:
        if not is_ranked(item) and outcome(item) != "baseline":
            groups[outcome(item), item.techniques, why_not_ranked(item)].append(item.workload)
    return [
        Excluded(outcome=key[0], techniques=key[1], workloads=tuple(workloads), reason=key[2])
        for key, workloads in sorted(groups.items(), key=lambda group: group[0][0])
    ]


def unmeasured(comparisons: Sequence[Comparison], plan: Plan) -> list[Excluded]:
    """The arms of the plan without a record, on workloads that have one."""
    known = {(item.workload, item.techniques) for item in comparisons}
    begun = {workload for workload, _ in known}
    missing: dict[str, list[str]] = defaultdict(list)
    for trial in itertools.chain.from_iterable(map(plan.trials, plan.workloads)):
        if trial.workload.name in begun and (trial.workload.name, trial.label) not in known:
            missing[trial.label].append(trial.workload.name)
    return [
        Excluded(outcome="not measured", techniques=label, workloads=tuple(workloads), reason=NO_TIME)
        for label, workloads in missing.items()
    ]


def remarks(comparisons: Sequence[Comparison]) -> list[str]:
    """The notes below a table: the kind of its intervals, and the reason for each arm that is not ranked."""
    ranked = [item for item in comparisons if is_ranked(item)]
    reasons = [
        f"{item.techniques} on {quantity.several(list(item.workloads))}: {item.outcome}: {item.reason}"
        for item in excluded(comparisons)
    ]
    return ([INTERVALS] if any(item.speedup_low is not None for item in ranked) else []) + reasons
