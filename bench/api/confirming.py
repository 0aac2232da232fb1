"""Confirming a recipe on fresh repetitions, which took no part in finding it: the best of many looks better than it
is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bench.api.stages import Stages
from bench.facts import Objective
from bench.script.recipe import LOSSES
from bench.spec import BASELINE, Protocol
from harness.record import Record, Status
from results import ladder as ladders
from results.compare import blocks
from results.contrasts import contrasts
from results.ladder import Confirmation, Gain, Rung, Tried

PROTOCOL = Protocol(warmup_s=1.0, rounds_s=1.0, timeout_s=180, certify_steps=LOSSES)

REPETITIONS = 3
"""The fewest repetitions; up to twice as many are made if time is left."""

LEAST_S = 10.0
"""With fewer seconds than this, nothing can be found out."""


def _unproven(found: Confirmation) -> Tried | None:
    """The recipe without a technique that enough fresh repetitions have not shown to help; if there are several,
    without the one that seems to help least. Each has already helped beyond doubt in its own heat, so its own bounds,
    and not those that hold for all arms together, are enough here."""
    enough = [item for item in found.without.values() if item.gain.repetitions >= REPETITIONS and item.gain.own_high]
    idle = [item for item in enough if (item.gain.own_high or 1.0) >= 1]
    return max(idle, key=lambda item: item.gain.speedup or 0.0, default=None)


def _runner_up(rungs: Sequence[Rung], recipe: tuple[str, ...]) -> tuple[str, ...] | None:
    """The best alternative to the recipe: the rival that came nearest to joining it, or else the recipe that it grew
    from. None if that is the baseline."""
    heats = [rung for rung in rungs if rung.objective is not Objective.WORTH]
    near = [item for rung in heats if rung.before == recipe for item in rung.tried if item.reason is None]
    known = [item for item in near if item.gain.speedup is not None]
    if known:
        return max(known, key=lambda item: item.gain.speedup or 0.0).techniques
    return next((rung.before for rung in heats if rung.after == recipe != rung.before), ()) or None


def confirmed(
    stages: Stages, recipe: tuple[str, ...], rungs: list[Rung], told: Callable[[Rung], object]
) -> Confirmation:
    """Confirm the recipe on fresh repetitions. If another composition is better there beyond doubt, or the recipe does
    as well without one of its techniques, that becomes one more rung, which is confirmed on fresh repetitions of its
    own while time is left. A rung that is not confirmed is taken back."""
    attempt = 0
    standing: Confirmation | None = None
    while True:
        begun_s = time.monotonic()
        found, better = _confirmation(stages, attempt, recipe, _runner_up(rungs, recipe))
        attempt += 1
        if standing and not found.whole.helps:
            rungs.pop()
            return standing
        standing = found if better and found.whole.helps else None
        following = better or _unproven(found)
        if following is None or not following.techniques or stages.left_s() < LEAST_S:
            return found
        rungs.append(
            Rung(
                before=recipe,
                after=following.techniques,
                tried=(following,),
                late=False,
                seconds=time.monotonic() - begun_s,
                arm_s=0.0,
            )
        )
        told(rungs[-1])
        recipe = following.techniques


def _confirmation(
    stages: Stages, attempt: int, recipe: tuple[str, ...], runner_up: tuple[str, ...] | None
) -> tuple[Confirmation, Tried | None]:
    """What fresh repetitions say of the recipe, and the composition that was better in them, if any."""
    label, begun_s = "+".join(recipe), time.monotonic()
    without = {name: tuple(other for other in recipe if other != name) for name in recipe}
    # If memory is limited, a technique may be in the recipe to save it.
    too_large = stages.too_large([(), *without.values()])
    without = {name: names for name, names in without.items() if names not in too_large}
    others = {"+".join(names): names for names in (*without.values(), runner_up) if names}
    rivals = others if () in too_large else others | {BASELINE: ()}
    # Earlier heats only tell how much processes of one arm differ.
    lent = stages.elsewhere()

    def judged(records: Sequence[Record]) -> dict[str, Tried]:
        return {item.label: item for item in ladders.heat(records, recipe, rivals, lent=lent, by=stages.by)}

    def choose(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
        taken = len({record.repetition for record in records if not record.disturbed})
        # If something is better already, the remaining time is for confirming that.
        is_enough = taken >= 2 * REPETITIONS or ladders.best(list(judged(records).values())) is not None
        return [] if is_enough else [(stages.workload, [label, *others])]

    records, _ = stages.measure(
        f"confirmation-{attempt + 1}",
        (recipe, *(names for names in others.values() if names != recipe)),
        PROTOCOL,
        repetitions=REPETITIONS,
        budget_s=max(1.0, stages.left_s()),
        choose=choose,
        lead=label,
    )
    own = [record for record in records if record.techniques == label]
    against_baseline = contrasts(blocks(records, stages.by), BASELINE, [label], lent)
    is_sound = all(record.status is Status.OK for record in own)
    against = judged(records)
    found = Confirmation(
        techniques=recipe,
        whole=ladders.gain(against_baseline.get(label), own) if is_sound else Gain(),
        without={name: against["+".join(names) or BASELINE] for name, names in without.items()},
        runner_up=against["+".join(runner_up)] if runner_up else None,
        peak_memory_bytes={
            name: ladders.peak_memory_bytes([record for record in records if record.techniques == name])
            for name in (BASELINE, label)
        },
        seconds=time.monotonic() - begun_s,
    )
    return found, ladders.best([item for name, item in against.items() if name != label])
