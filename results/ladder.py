"""How a recipe grows: what each heat shows about the rivals of the recipe so far, and the resulting ladder.

A rival joins when its simultaneous bounds against the recipe so far exclude 1 (results.contrasts), never because of its
estimate. The bounds are checked after every repetition, and they select the best of many, so a heat flatters the rival
that joins a little. The figures of a rung therefore use all heats that had both sides of it, later ones included. Those
of the whole recipe come from fresh repetitions that took no part in any choice.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.facts import Objective
from bench.script.code import Elsewhere
from bench.spec import BASELINE
from harness.record import Record, Status
from results.compare import blocks
from results.contrasts import Block, Contrast, contrasts

INTERRUPTED = "it was interrupted"
"""Why a ladder ended that can be continued."""

NO_TIME = "there was no time for it"

MOST_REPETITIONS = 5
"""A rival still open after so many repetitions is left undecided: it makes little difference."""

PROMISES, ENOUGH_REPETITIONS = 1.02, 15
"""A rival that seems to gain at least this much gets up to so many: processes that differ widely may hide its gain."""

HOPELESS = 0.8
"""An arm at or below this share of the recipe's pace in its first repetition leaves before there are bounds: processes
of one arm differ by only 2 to 4 %."""

MATTERS = 1.005
"""A rival that cannot bring the pace above this factor is not tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """The pace of a composition over that of another, above 1 is faster; None is unknown. `low` and `high` hold for all
    rivals of the heat together with 95 %, `own_low` and `own_high` for this one alone."""

    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    repetitions: int = 0
    own_low: float | None = None
    own_high: float | None = None

    @property
    def helps(self) -> bool:
        """Whether it is faster beyond doubt."""
        return self.low is not None and self.low > 1

    @property
    def hurts(self) -> bool:
        return self.high is not None and self.high < 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A composition that was tried against the recipe so far, its gain, and the `reason` if it cannot join. `failed`:
    it cannot join in a later heat either."""

    techniques: tuple[str, ...]
    gain: Gain
    peak_memory_bytes: int | None = None
    reason: str | None = None
    failed: bool = False

    @property
    def may_join_later(self) -> bool:
        """Whether it is worth another try at once, together with another technique."""
        if self.gain.high is not None:
            return self.gain.high > MATTERS
        return self.gain.speedup is None or self.gain.speedup > HOPELESS

    @property
    def is_looked_for(self) -> bool:
        """Whether it may get further repetitions."""
        promises = (self.gain.speedup or 0.0) >= PROMISES
        return self.gain.repetitions < (ENOUGH_REPETITIONS if promises else MOST_REPETITIONS)

    @property
    def label(self) -> str:
        return "+".join(self.techniques) or BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One heat of the climb: the recipe `before`, the rivals `tried` against it, and the recipe `after`, which is the
    same if nothing joined. `late` heats try what waits until nothing else helps. `arm_s` is how long the arm that
    joined took, compilation included, or most arms if nothing joined. `overall` is the gain over all heats of the
    tuning. If the `objective` is the time to the same loss, the gain comes from trainings, and `learning_rate` is the
    best one, as a factor of the workload's."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    tried: tuple[Tried, ...]
    late: bool
    seconds: float
    arm_s: float
    overall: Gain | None = None
    objective: Objective = Objective.PACE
    learning_rate: float = 1.0

    @property
    def gain(self) -> Gain:
        """The gain of this step, by all that is known; unknown if nothing joined."""
        if self.overall is not None:
            return self.overall
        return self.chosen.gain if self.chosen else Gain()

    @property
    def undecided(self) -> list[Tried]:
        """The rivals that may still help but were not settled, for lack of time or because they were disturbed."""
        unseen = [item for item in self.tried if item.reason and not item.failed]
        return unseen + [item for item in contenders(self.tried) if item.is_looked_for]

    @property
    def added(self) -> tuple[str, ...]:
        return tuple(name for name in self.after if name not in self.before)

    @property
    def removed(self) -> tuple[str, ...]:
        return tuple(name for name in self.before if name not in self.after)

    @property
    def chosen(self) -> Tried | None:
        """The rival that joined; None if none did."""
        if self.after == self.before:
            return None
        return next(item for item in self.tried if item.techniques == self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The recipe on fresh repetitions: `whole` compares it with the baseline, `without` compares it without each
    technique with the whole (above 1: faster without), and `runner_up` compares the runner-up with the recipe."""

    techniques: tuple[str, ...]
    whole: Gain
    without: Mapping[str, Tried] = dataclasses.field(default_factory=dict)
    runner_up: Tried | None = None
    peak_memory_bytes: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    learning_rate: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """A whole tuning. `ended` says in words why it climbed no further. `techniques` are those of the recipe, none if
    nothing was confirmed to help. `confirmation` is None if there was no time for it, or nothing to confirm.
    `no_script` says why there is no recipe.py, and `elsewhere` is the recipe for trainers of other libraries.
    `memory_bytes` is the memory limit, if the baseline exceeds it. If the `objective` is the time to the same loss, the
    factors are those of that time, and `learning_rate` is a factor of the workload's."""

    workload: Mapping[str, Any]
    techniques: tuple[str, ...]
    rungs: tuple[Rung, ...]
    confirmation: Confirmation | None
    left_out: Mapping[str, str]
    allowed: tuple[str, ...]
    ended: str
    device: str
    device_name: str
    machine_id: str
    seed: int
    seconds: float
    version: str
    no_script: str | None = None
    elsewhere: Mapping[str, Elsewhere] = dataclasses.field(default_factory=dict)
    memory_bytes: int | None = None
    objective: Objective = Objective.PACE
    learning_rate: float = 1.0

    @property
    def interrupted(self) -> bool:
        return self.ended == INTERRUPTED

    @property
    def steps(self) -> list[Rung]:
        """The rungs at which a rival joined."""
        return [rung for rung in self.rungs if rung.chosen]

    @property
    def product(self) -> float | None:
        """The product of the rungs' factors; None without steps."""
        factors = [rung.gain.speedup for rung in self.steps]
        return math.prod(factor for factor in factors if factor is not None) if factors else None

    @property
    def whole(self) -> Gain:
        """The recipe against the baseline, on fresh repetitions; an empty one is the baseline itself."""
        if not self.techniques:
            return Gain(speedup=1.0, low=1.0, high=1.0)
        return self.confirmation.whole if self.confirmation else Gain()


def write(ladder: Ladder, file: Path) -> None:
    """Write it as JSON, with what a program needs most at the top."""
    whole = ladder.whole
    steps = [
        {
            "added": rung.added,
            "removed": rung.removed,
            "speedup": rung.gain.speedup,
            "speedup_low": rung.gain.low,
            "speedup_high": rung.gain.high,
            "peak_memory_bytes": rung.chosen.peak_memory_bytes,
            "seconds": rung.seconds,
        }
        for rung in ladder.steps
        if rung.chosen
    ]
    head = {
        "techniques": ladder.techniques,
        "speedup": whole.speedup,
        "speedup_low": whole.low,
        "speedup_high": whole.high,
        "objective": ladder.objective,
        "learning_rate": ladder.learning_rate,
        "product_of_rungs": ladder.product,
        "rungs": steps,
        "elsewhere": {name: dataclasses.asdict(told) for name, told in ladder.elsewhere.items()},
    }
    file.write_text(json.dumps(head | {"ladder": dataclasses.asdict(ladder)}, indent=2) + "\n", encoding="utf-8")


def heat(
    records: Sequence[Record],
    before: tuple[str, ...],
    rivals: Mapping[str, tuple[str, ...]],
    memory_bytes: int | None = None,
    *,
    earlier: Sequence[Sequence[Record]] = (),
    lent: Sequence[Block] = (),
    by: Objective = Objective.PACE,
) -> list[Tried]:
    """The result of one heat for each rival of the recipe so far; `rivals` is by label. Repetitions of `earlier` heats
    against the same recipe count like its own. `lent` blocks of other heats only help to estimate how much processes
    differ. Gains are of the pace, or `by` energy."""
    heats = [*earlier, records]
    lead = "+".join(before) or BASELINE
    against = contrasts([block for found in heats for block in blocks(found, by)], lead, rivals, lent)
    return [_tried(heats, label, names, against.get(label), memory_bytes) for label, names in rivals.items()]


def _tried(
    heats: Sequence[Sequence[Record]],
    label: str,
    techniques: tuple[str, ...],
    found: Contrast | None,
    memory_bytes: int | None,
) -> Tried:
    own = [record for records in heats for record in records if record.techniques == label]
    failed = next((record for record in own if record.status is not Status.OK), None)
    peak_bytes = peak_memory_bytes(own)
    too_large = memory_bytes is not None and peak_bytes is not None and peak_bytes > memory_bytes
    if not own:
        reason: str | None = NO_TIME
    elif failed:
        reason = failed.reason or failed.status.value
    elif too_large and peak_bytes and memory_bytes:
        reason = f"takes {peak_bytes / 1e9:.3g} GB, more than {memory_bytes / 1e9:.3g} GB"
    elif found is None:
        reason = own[-1].disturbances[-1] if own[-1].disturbances else "it was not timed beside the recipe"
    else:
        reason = None
    return Tried(
        techniques=techniques,
        gain=gain(found, *([item for item in records if item.techniques == label] for records in heats)),
        peak_memory_bytes=peak_bytes,
        reason=reason,
        failed=failed is not None or too_large,
    )


def overall(rung: Rung, heats: Sequence[Sequence[Record]], by: Objective = Objective.PACE) -> Gain:
    """The gain of a rung over all heats that had both sides of it."""
    before, after = ("+".join(names) or BASELINE for names in (rung.before, rung.after))
    values = [block for records in heats for block in blocks(records, by)]
    own = ([record for record in records if record.techniques == after] for records in heats)
    return gain(contrasts(values, before, [after]).get(after), *own)


def gain(found: Contrast | None, *heats: Sequence[Record]) -> Gain:
    """The contrast as factors of the pace; `heats` are the arm's records in each heat."""
    if found is None:
        return Gain()
    return Gain(
        speedup=math.exp(found.estimate),
        low=None if found.claim_low is None else math.exp(found.claim_low),
        high=None if found.claim_high is None else math.exp(found.claim_high),
        own_low=None if found.low is None else math.exp(found.low),
        own_high=None if found.high is None else math.exp(found.high),
        repetitions=sum(len({record.repetition for record in own if not record.disturbed}) for own in heats),
    )


def peak_memory_bytes(records: Sequence[Record]) -> int | None:
    """The peak memory of all ranks, as the median over the repetitions; None if unknown."""
    found = [record.measurement.peak_memory_bytes for record in records if record.status is Status.OK]
    known = [size for size in found if size is not None]
    return round(statistics.median(known)) if known else None


def best(tried: Sequence[Tried]) -> Tried | None:
    """The rival that helps most beyond doubt, by its lower bound; None if none does."""
    helping = [item for item in tried if item.reason is None and item.gain.helps]
    return max(helping, key=lambda item: item.gain.low or 0.0, default=None)


def contenders(tried: Sequence[Tried]) -> list[Tried]:
    """The rivals that may still be the best: their upper bound is above MATTERS and above the best's lower bound."""
    leader = best(tried)
    least = max(MATTERS, leader.gain.low or 0.0 if leader else 0.0)
    able = [item for item in tried if item.reason is None and item.gain.speedup is not None]
    return [item for item in able if item is leader or _may_exceed(item.gain, least)]


def _may_exceed(found: Gain, least: float) -> bool:
    if found.high is None:
        return (found.speedup or 0.0) > HOPELESS
    return found.high > least
