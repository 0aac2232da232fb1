"""From the repetitions of two sides to a verdict: which repetitions count, what they show, and how surely."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.record import Measurement, Record, Status
from results.decision import LOOKS, Decision, Margins, Verdict, decide, p_above
from results.pace import centre, turns
from results.statistics import interval

if TYPE_CHECKING:
    # It imports torch, which takes a second; reading stored results must not need that.
    from harness.ab.pair import Pair

MOST_DROPPED = 8
"""At most this many disturbed repetitions of a workload are replaced; with more, it is given up."""

DROPPED_SHARE = 0.25
"""There is no decision about a workload if more than this share of its repetitions were disturbed."""

WORST_FIRST = (Verdict.REGRESSION, Verdict.INVALID, Verdict.INCONCLUSIVE, Verdict.PASS)

TOO_LATE = (Verdict.INCONCLUSIVE, "the time ran out before anything was measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one workload: the margins of its time, and the share by which its peak memory may grow."""

    time: Margins = field(default_factory=Margins)
    memory: float = 0.005

    def __post_init__(self) -> None:
        if not self.memory >= 0:
            raise ValueError(f"memory {self.memory} is below 0: give the share by which peak memory may grow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Peak memory of the head over the base's, with its 95 % interval, and whether it has provably grown by more than
    the limit."""

    ratio: float
    ratio_low: float | None
    ratio_high: float | None
    is_regression: bool

    def may_have_grown(self, limit: float) -> bool:
        """Whether the whole interval lies above the limit, which is weaker than a proof over all looks."""
        return self.ratio_low is not None and self.ratio_low > 1 + limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The finding for one workload. `reasons` say in words what the verdict rests on, apart from the time.

    `repetitions` were counted, `dropped` were disturbed; `disturbances` has the causes with their counts.
    """

    workload: str
    verdict: Verdict
    limits: Limits
    repetitions: int
    dropped: int
    disturbances: Mapping[str, int]
    reasons: tuple[str, ...] = ()
    time: Decision | None = None
    memory: Memory | None = None
    base_step_time_s: float | None = None
    head_step_time_s: float | None = None
    base_allocated_bytes: int | None = None
    head_allocated_bytes: int | None = None


class Referee:
    """Looks at the repetitions as they come in. Once a look has decided about a workload, the decision stands."""

    def __init__(self, limits: Mapping[str, Limits], missing: Mapping[str, str], *, needs_checkout: bool) -> None:
        """`limits` has all workloads asked for; `missing` has those that cannot be compared, with the reason. With
        `needs_checkout`, code of the sides' checkouts must have run, because it is what is compared."""
        self._limits, self._needs_checkout = limits, needs_checkout
        self._settled = {name: self._finding(name, [], Verdict.INVALID, reason) for name, reason in missing.items()}

    def __call__(self, pairs: Sequence[Pair]) -> list[str]:
        """The workloads that need more repetitions. A look is taken first, if all open ones have enough for it."""
        self._reject_unfit(pairs)
        good = {name: self._good(pairs, name) for name in self._open}
        due = [name for name, found in good.items() if len(found) in LOOKS]
        # All open workloads are looked at together.
        if due and len(due) == len(good):
            self._look(pairs, good)
        return [name for name in self._open if len(good[name]) < max(LOOKS)]

    def conclude(self, pairs: Sequence[Pair]) -> list[Finding]:
        """The findings for all workloads, once there will be no more repetitions."""
        self(pairs)
        good = {name: self._good(pairs, name) for name in self._open}
        # If the time ran out midway, surplus repetitions are left out, which does not depend on their times.
        size = min((len(found) for found in good.values()), default=0)
        if size and self._open:
            self._look(pairs, {name: found[:size] for name, found in good.items()}, is_last=True)
        for name in self._open:
            own = self._of(pairs, name)
            verdict, reason = (Verdict.INVALID, "all repetitions were disturbed") if own else TOO_LATE
            self._settled[name] = self._finding(name, own, verdict, reason)
        return [self._settled[name] for name in self._limits]

    @property
    def _open(self) -> list[str]:
        return [name for name in self._limits if name not in self._settled]

    @staticmethod
    def _of(pairs: Sequence[Pair], name: str) -> list[Pair]:
        return [pair for pair in pairs if pair.workload == name]

    def _good(self, pairs: Sequence[Pair], name: str) -> list[Pair]:
        return [pair for pair in self._of(pairs, name) if not pair.disturbed]

    def _reject_unfit(self, pairs: Sequence[Pair]) -> None:
        for name in self._open:
            own = self._of(pairs, name)
            reason = next((reason for pair in own for reason in unfit(pair, self._needs_checkout)), None)
            dropped = sum(bool(pair.disturbed) for pair in own)
            if reason is None and dropped > MOST_DROPPED:
                reason = f"{dropped} of {len(own)} repetitions were disturbed"
            if reason is not None:
                self._settled[name] = self._finding(name, own, Verdict.INVALID, reason)

    def _look(self, pairs: Sequence[Pair], good: Mapping[str, Sequence[Pair]], *, is_last: bool = False) -> None:
        ratios = {name: [log_ratio(pair) for pair in found] for name, found in good.items()}
        convicted = sum(finding.verdict is Verdict.REGRESSION for finding in self._settled.values())
        family = len(self._limits) - convicted
        margins = {name: self._limits[name].time for name in good}
        for name, decision in decide(ratios, margins, family=family).items():
            finding = self._judged(name, self._of(pairs, name), good[name], decision, family)
            if is_last or len(good[name]) == max(LOOKS) or finding.verdict in (Verdict.PASS, Verdict.REGRESSION):
                self._settled[name] = finding

    def _judged(self, name: str, own: Sequence[Pair], good: Sequence[Pair], decision: Decision, family: int) -> Finding:
        memory = compare_memory(good, self._limits[name].memory, LOOKS.get(len(good), min(LOOKS.values())) / family)
        reasons = side_gates(good, memory, self._limits[name])
        allocated = [found for pair in own if (found := pair.allocated_bytes)]
        reasons += _allocates_more(allocated, self._limits[name].memory)
        verdict = Verdict.REGRESSION if reasons else decision.verdict
        if verdict is Verdict.PASS and (reason := _may_have_grown(memory, allocated, self._limits[name].memory)):
            verdict, reasons = Verdict.INCONCLUSIVE, [reason]
        dropped = len(own) - sum(not pair.disturbed for pair in own)
        if dropped > DROPPED_SHARE * len(own):
            # The share may still fall; until then nothing is decided.
            verdict, reasons = Verdict.INVALID, [f"{dropped} of {len(own)} repetitions were disturbed"]
        finding = self._finding(name, own, verdict, *reasons)
        return dataclasses.replace(
            finding,
            repetitions=len(good),
            time=decision,
            memory=memory,
            base_step_time_s=statistics.median(_step_time_s(pair.base) for pair in good),
            head_step_time_s=statistics.median(_step_time_s(pair.head) for pair in good),
            base_allocated_bytes=allocated[-1][0] if allocated else None,
            head_allocated_bytes=allocated[-1][1] if allocated else None,
        )

    def _finding(self, name: str, own: Sequence[Pair], verdict: Verdict, *reasons: str) -> Finding:
        causes = [cause for pair in own for cause in pair.disturbed]
        return Finding(
            workload=name,
            verdict=verdict,
            limits=self._limits[name],
            repetitions=sum(not pair.disturbed for pair in own),
            dropped=sum(bool(pair.disturbed) for pair in own),
            disturbances={cause: causes.count(cause) for cause in dict.fromkeys(causes)},
            reasons=reasons,
        )


def overall(findings: Collection[Finding]) -> Verdict:
    """A regression if any workload has one, else invalid if any is, else inconclusive if any is; pass if all pass."""
    return min((finding.verdict for finding in findings), key=WORST_FIRST.index, default=Verdict.INVALID)


def log_ratio(pair: Pair) -> float:
    """ln(head / base) of the time per token (per sample, where samples are not text): the centre over the rounds, or,
    if the sides did not take their rounds together, the difference of their centres."""
    base, head = ({turn.round: turn.log_pace for turn in turns(record)} for record in (pair.base, pair.head))
    if not pair.together:
        return _centre(head.values()) - _centre(base.values())
    return _centre(head[index] - base[index] for index in base)


def _centre(values: Iterable[float]) -> float:
    found = centre(values)
    assert found is not None, "what is fit to be counted has turns"
    return found


def _step_time_s(record: Record) -> float:
    return _centre(turn.step_time_s for turn in turns(record))


def unfit(pair: Pair, needs_checkout: bool) -> list[str]:
    """Why a repetition is useless whatever its times, in words: another one would be no better."""
    at = f"in repetition {pair.repetition + 1}"
    sides = (("base", pair.base, pair.base_seen), ("head", pair.head, pair.head_seen))
    failed = [
        f"{name} ended as {record.status} {at}: {record.reason}"
        for name, record, _ in sides
        if record.status is not Status.OK
    ]
    if failed:
        return failed
    found = [f"{name} {problem} {at}" for name, record, _ in sides for problem in _bad_numbers(record.measurement)]
    found += [
        f"{name} imported {seen.strays[0]}, which is not the code of its checkout"
        for name, _, seen in sides
        if seen.strays
    ]
    if needs_checkout and not any(seen.modules for _, _, seen in sides):
        found.append("neither side ran any code of its checkout: name a model of yours, as in --model FILE.py:FUNCTION")
    base, head = pair.base.measurement, pair.head.measurement
    counts = {
        "steps": (len(base.round_step_times_s), len(head.round_step_times_s)),
        "samples": (sum(base.round_samples), sum(head.round_samples)),
        "tokens": (sum(base.round_tokens), sum(head.round_tokens)),
    }
    if pair.together:
        found += [f"base took {own} {what}, head {other} {at}" for what, (own, other) in counts.items() if own != other]
    return found


def _bad_numbers(measured: Measurement) -> list[str]:
    problems = []
    if not measured.round_step_times_s:
        problems.append("has no times")
    if any(not math.isfinite(time_s) or time_s <= 0 for time_s in measured.round_step_times_s):
        problems.append("has times that are not numbers")
    if not all(map(math.isfinite, measured.losses)):
        problems.append("has losses that are not numbers")
    return problems


def compare_memory(pairs: Sequence[Pair], limit: float, alpha: float) -> Memory | None:
    """The comparison of the sides' peak memory; None if any repetition lacks it. It is exact on a GPU. On a CPU it has
    a spread, so the same test as for time decides."""
    peaks = [(pair.base.measurement.peak_memory_bytes, pair.head.measurement.peak_memory_bytes) for pair in pairs]
    if any(base is None or head is None or base <= 0 or head <= 0 for base, head in peaks):
        return None
    logs = [math.log(head / base) for base, head in peaks if base and head]
    found = interval(logs)
    return Memory(
        ratio=math.exp(found.estimate),
        ratio_low=None if found.low is None else math.exp(found.low),
        ratio_high=None if found.high is None else math.exp(found.high),
        is_regression=p_above(logs, limit) <= alpha,
    )


def side_gates(pairs: Sequence[Pair], memory: Memory | None, limits: Limits) -> list[str]:
    """What has become worse apart from the time, in words."""
    found = []
    if memory is not None and memory.is_regression:
        found.append(f"peak memory grew by {memory.ratio - 1:.1%}, more than {limits.memory:.1%}")
    for name in ("graph_breaks", "recompiles"):
        base, head = (_counted(pairs, side, name) for side in ("base", "head"))
        if base is not None and head is not None and head > base:
            found.append(f"{name.replace('_', ' ')} went from {base:g} to {head:g}")
    return found


def _may_have_grown(memory: Memory | None, allocated: Sequence[tuple[int, int]], limit: float) -> str | None:
    """Why the workload cannot pass, if its memory may have grown; else None."""
    if memory is None:
        return "peak memory is unknown"
    if memory.may_have_grown(limit):
        return "peak memory may have grown"
    if any(_is_more(sight, limit) for sight in allocated):
        return "allocated memory may have grown"
    return None


ENOUGH_SIGHTS = 2
"""So many replays must show that the head allocates more. Each is exact, but random draws may differ between them."""


def _allocates_more(allocated: Sequence[tuple[int, int]], limit: float) -> list[str]:
    """The reason, in words, if the head allocated more than the limit allows in every replay; else empty."""
    if len(allocated) < ENOUGH_SIGHTS or not all(_is_more(sight, limit) for sight in allocated):
        return []
    base, head = allocated[-1]
    return [f"allocated memory grew from {base:,} to {head:,} bytes, by more than {limit:.1%}"]


def _is_more(allocated: tuple[int, int], limit: float) -> bool:
    base, head = allocated
    return head - base > limit * base


def _counted(pairs: Sequence[Pair], side: str, name: str) -> float | None:
    """The median count over the repetitions; None if any lacks it, because nothing was compiled."""
    counts = [getattr(getattr(pair, side).certificate, name, None) for pair in pairs]
    known = [count for count in counts if count is not None]
    return statistics.median(known) if len(known) == len(counts) else None
