"""The results of a run in sentences: what is fastest on each workload, and from which size on a technique pays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.spec import BASELINE
from harness.record import Status
from reports.wording import quantity
from reports.wording.columns import OUTCOME_WORDS, speedup
from reports.wording.view import arm_name, by_workload, differs, fastest_first, is_ranked, outcome
from results.compare import Comparison, Verdict
from results.crossover import Crossover, crossovers
from results.idle import ErrorRate, IdleHeat

NOTHING = "There is no record, so there is nothing to say."

VERDICT_WORDS = {
    Verdict.FASTER: "faster",
    Verdict.SLOWER: "slower",
    Verdict.SAME: "the same",
    Verdict.UNCLEAR: "not yet known",
}


def answer(comparisons: Sequence[Comparison]) -> str:
    """The run in one paragraph: for each workload what is fastest, what is slowest, and what is not known."""
    said = [*answers(comparisons).values(), *over_sizes(comparisons)]
    return " ".join(said) or NOTHING


def answers(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """For each workload, the sentences of the answer."""
    return {
        workload: " ".join(filter(None, (_fastest(workload, arms), _slowest(arms), _tally(arms))))
        for workload, arms in by_workload(comparisons).items()
    }


def headline(comparisons: Sequence[Comparison]) -> str:
    """The run in one line: what is proven faster with the same training, on how many workloads and by how much."""
    groups = by_workload(comparisons)
    if len(groups) < 2:
        return next(iter(answers(comparisons).values()), NOTHING)
    alike: dict[str, list[Comparison]] = {}
    for item in comparisons:
        if is_ranked(item) and item.verdict is Verdict.FASTER and not differs(item):
            alike.setdefault(item.techniques, []).append(item)
    ranked = [item for item in comparisons if is_ranked(item)]
    unclear = sum(item.verdict is Verdict.UNCLEAR for item in ranked)
    rest = f" {unclear} of {len(ranked)} ranked arms have no clear verdict yet." if unclear else ""
    if not alike:
        return f"Nothing with the same training is shown to be faster than {BASELINE} on any workload.{rest}"
    best = sorted(alike.items(), key=lambda entry: (-len(entry[1]), -max(item.speedup or 0 for item in entry[1])))
    told = [f"{techniques} on {len(found)} of {len(groups)} workloads ({_span(found)})" for techniques, found in best]
    return f"Shown to be faster, with the same training: {quantity.several(told, 4)}.{rest}"


def _span(found: Sequence[Comparison]) -> str:
    """`1.19x to 1.51x`: the smallest and the largest speed-up."""
    speedups = sorted(item.speedup or 0.0 for item in found)
    return " to ".join(dict.fromkeys(quantity.ratio(value) for value in (speedups[0], speedups[-1])))


def _fastest(workload: str, arms: Sequence[Comparison]) -> str:
    ranked = fastest_first(arms)
    baseline = next((item for item in arms if item.techniques == BASELINE), None)
    if not ranked:
        return f"On {workload} nothing can be compared: {_why_nothing(baseline, arms)}."
    faster = [item for item in ranked if item.verdict is Verdict.FASTER]
    if not faster:
        single = all(item.speedup_low is None for item in ranked)
        because = ": one repetition gives no interval" if single else ""
        return f"On {workload} nothing is shown to be faster than {_name(baseline)}{because}."
    alike = [item for item in faster if not differs(item)]
    sentences = [f"On {workload}, {_best(faster, alike, _name(baseline))}."]
    if alike and differs(faster[0]):
        other = faster[0]
        sentences.append(f"{other.techniques} is faster still, at {speedup(other)}, with {differs(other)}.")
    return " ".join(sentences)


def _name(baseline: Comparison | None) -> str:
    return arm_name(baseline) if baseline else BASELINE


def _best(faster: Sequence[Comparison], alike: Sequence[Comparison], baseline: str) -> str:
    """The fastest arm with the same training as the baseline; if there is none, the fastest of all."""
    leaders = alike or faster
    best = leaders[0]
    rivals = [item.techniques for item in leaders[1:] if (item.speedup_high or 0) >= (best.speedup_low or 0)]
    overlap = f"; its interval overlaps that of {quantity.several(rivals, 3)}" if rivals else ""
    mark = f" ({differs(best)})" if differs(best) else ""
    return f"{best.techniques}{mark} is fastest, at {speedup(best)} the speed of {baseline}{overlap}"


def _why_nothing(baseline: Comparison | None, arms: Sequence[Comparison]) -> str:
    if baseline is None:
        return f"the baseline {BASELINE} has no record"
    if baseline.status is not Status.OK:
        reason = f" ({baseline.reason})" if baseline.reason else ""
        return f"the baseline {_name(baseline)} ended as {OUTCOME_WORDS[baseline.status]}{reason}"
    if baseline.dropped and not baseline.repetitions:
        return f"{baseline.reason}. Stop whatever else runs here, or wait until it ends, and measure again"
    return "no other arm ended ok" if len(arms) > 1 else "only the baseline was run"


def _slowest(arms: Sequence[Comparison]) -> str:
    slower = [item for item in fastest_first(arms) if item.verdict is Verdict.SLOWER]
    return f"{slower[-1].techniques} is slowest, at {speedup(slower[-1])}." if slower else ""


def _tally(arms: Sequence[Comparison]) -> str:
    rivals = [item for item in arms if item.techniques != BASELINE]
    verdicts = Counter(item.verdict for item in rivals if is_ranked(item))
    others = Counter(outcome(item) for item in rivals if not is_ranked(item))
    counted = [f"{verdicts[verdict]} {word}" for verdict, word in VERDICT_WORDS.items() if verdicts[verdict]]
    dropped = max((item.dropped for item in arms if item.repetitions), default=0)
    left_out = [f"{number} {word}" for word, number in others.items()]
    if not rivals:
        return ""
    ranked = f"{quantity.several(counted, 9)}" if counted else "none ranked"
    rest = f"; not ranked: {quantity.several(left_out, 9)}" if left_out else ""
    more = "repetition" if dropped == 1 else "repetitions"
    disturbed = f" {dropped} disturbed {more} had to be left out." if dropped else ""
    return f"Of {len(rivals)} tried: {ranked}{_to_know(arms)}{rest}.{disturbed}"


def _to_know(arms: Sequence[Comparison]) -> str:
    """About how long further repetitions would take to settle the unclear verdicts."""
    open_s = sorted(item.seconds_to_know for item in arms if item.seconds_to_know is not None)
    if not open_s:
        return ""
    span = list(dict.fromkeys(quantity.duration(seconds, 2) for seconds in (open_s[0], open_s[-1])))
    which = "each" if len(open_s) > 1 else "that"
    return f" (about {' to '.join(span)} more of measuring would settle {which})"


def over_sizes(comparisons: Sequence[Comparison]) -> list[str]:
    """For each technique over the sizes of a family: from which size on it pays, if any."""
    return [over_family(item) for item in crossovers(comparisons)]


def over_family(found: Crossover) -> str:
    """From which size on the technique is proven faster. A size that is only unclear is not called slower."""
    arm, count = found.sizes[0], quantity.count
    name = found.techniques + (f" ({differs(arm)})" if differs(arm) else "")
    span = f"the {len(found.sizes)} sizes of {found.family} tried"
    start = found.pays_from
    if start == 0:
        ends = f"from {speedup(found.sizes[0])} on the smallest to {speedup(found.sizes[-1])} on the largest"
        return f"{name} pays on all of {span}, {ends}."
    if start is not None:
        size, before = found.sizes[start], found.sizes[start - 1]
        large, small = count(found.parameters[start]), count(found.parameters[start - 1])
        return (
            f"{name} pays from {size.workload} on ({large} parameters, {speedup(size)}); "
            f"on {before.workload} ({small}) it is {outcome(before)}, at {speedup(before)}."
        )
    faster = [item.workload for item in found.sizes if item.verdict is Verdict.FASTER]
    some = f", though it does on {quantity.several(faster)}" if faster else ""
    return f"{name} is not shown to pay on the largest of {span}, {speedup(found.sizes[-1])}{some}."


def idle_heat(found: IdleHeat) -> str:
    """The result of one heat of idle copies of the baseline."""
    bias = "" if found.step_bias is None else f"; its step is {quantity.ratio(found.step_bias)} a bare loop's"
    dropped = f", {found.dropped} dropped" if found.dropped else ""
    return (
        f"{found.held} of {found.intervals} intervals hold the truth, {found.false_directions} false directions, "
        f"bounds of {quantity.share(found.claim_width)} on either side from {found.repetitions} repetitions{dropped}"
        f"{bias} ({quantity.duration(found.seconds, 2)})"
    )


def error_rate(found: ErrorRate | None) -> str:
    """How often `run` is wrong on this machine, as far as is known."""
    if found is None or found.false_bound is None:
        return "How often this machine's verdicts are wrong is not known: `trainpace run --calibrate 10` finds out."
    held, false = found.held, found.false_heats
    heats = "heat" if false.tries == 1 else "heats"
    bias = "" if found.step_bias is None else f", and a step took {quantity.ratio(found.step_bias)} a bare loop's"
    return (
        f"On this machine {false.seen} of {false.tries} {heats} of idle copies of the baseline had a false direction "
        f"(at most {quantity.share(found.false_bound)} of all, with 95 % confidence); {held.seen} of {held.tries} "
        f"single intervals ({quantity.share(held.seen / held.tries)}) held the truth{bias}."
    )
