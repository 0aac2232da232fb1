"""The last rungs of a tuning for the time to the same loss: techniques that learn differently, as optimizers and
schedules do, compared with the fastest recipe.

A recipe whose techniques change only rounding is faster at no cost in loss. On top of it come techniques that learn
more per update. All of them get a first look over few updates, and the best are then trained over several seeds beside
the recipe (bench.api.asking). The whole is confirmed on seeds that took no part in choosing it.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.api import confirming, worths
from bench.api.asking import LEAST_UPDATES, OF_TUNING, Asking, Question
from bench.api.kept import Kept
from bench.api.stages import Stages
from bench.candidates import joined
from bench.composition import compose
from bench.corpus import write_atomically
from bench.facts import Change, Objective
from bench.spec import BASELINE
from harness.learning.curve import Training
from harness.learning.training import THREADS_COST, Trainings, divided
from harness.preparation.pretrain import pretrain
from results import arm
from results import ladder as ladders
from results import worth as outcome
from results.ladder import NO_TIME, Confirmation, Gain, Rung, Tried
from results.worth import Answer, Found, Ratio, Worth

LEARNS = frozenset({Change.UPDATE_RULE, Change.SCHEDULE})
"""What may change if the objective is the time to the same loss, besides what the user allows."""

PACE_SHARE = 0.3
"""The share of the whole time for the climb to the fastest recipe."""

FIRST_LOOK_SHARE, FIRST_RATES = 0.25, 4
"""The share of the time left then for a first look at all learners, and the number of learning rates to try for
each."""

MOST_COMPARED = 3
"""How many of the best in the first look are trained over several seeds."""

COMPARED_SHARE, SEEDS, RATES = 0.55, 5, 4
"""The share of the time left after the look for these trainings, and their seeds and learning rates; the rest confirms
what was found."""

FRESH = 5000
"""Added to the seed: what confirms the result took no part in choosing it."""

REPLAY_S = 30.0
"""Seconds for one repetition of the recipe, whose first losses its script is checked against."""

TOO_LATE = "it did not learn faster in a first look"
NOT_AMONG_THE_BEST = "others did better in a first look"


@dataclass(frozen=True, slots=True, kw_only=True)
class Learners:
    """Techniques that learn differently, by name. `told` receives each rung."""

    stages: Stages
    names: tuple[str, ...]
    told: Callable[[Rung], object]

    def climb(self, rungs: list[Rung]) -> Confirmation | None:
        """Add the rungs of techniques that learn faster, and confirm the whole. None if nothing helps beyond doubt, or
        if there is no time to confirm it."""
        recipe = _arranged(rungs[-1].after if rungs else ())
        begun_s = time.monotonic()
        promising, reasons = self._looked_at(recipe)
        joined_some = False
        while promising or reasons:
            found = self._compared(len(rungs), recipe, promising) if promising else ()
            rung = _rung(recipe, promising, found, reasons, seconds=time.monotonic() - begun_s)
            rungs.append(rung)
            self.told(rung)
            if rung.chosen is None:
                break
            joined_some, begun_s, reasons = True, time.monotonic(), {}
            promising = self._beside(rung.after, promising)
            recipe = rung.after
        return self._confirmed(recipe) if joined_some else None

    def _looked_at(self, recipe: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], dict[tuple[str, ...], str]]:
        """The techniques that did best over few updates, by name with the composition that each makes with the recipe;
        and why the others are out. Several rates are tried for each, and for the recipe itself. What counts is the time
        to the loss that the recipe reached."""
        stages, label = self.stages, "+".join(recipe) or BASELINE
        step_s = self._step_s(recipe)
        rivals = self._rivals(recipe)
        if step_s is None:
            return {}, dict.fromkeys(rivals.values(), f"{label} was not timed")
        names, updates = self._first_look(label, list(rivals), step_s)
        reasons = {other: NO_TIME for name, other in rivals.items() if name not in names}
        rivals = {name: rivals[name] for name in names}
        if not rivals:
            return {}, reasons
        entry, _ = divided(stages.prepared.entries[0], stages.fork_server)
        for other in rivals.values():
            pretrain(entry, other, stages.asked.device, stages.fork_server, lambda: None)
        kept = Kept(stages.folder, f"first look beside {label}")
        trainings = Trainings(stages.prepared.host, entry, stages.fork_server, stages.folder / "arms.log")
        seed = stages.asked.seed + OF_TUNING
        for _ in range(FIRST_RATES):
            due = kept.next_rates((recipe, *rivals.values()), FIRST_RATES, seed=seed, updates=updates)
            kept.train(trainings, due, _quiet)
        costs = _costs(kept.all(), label)
        failed = {item.asked.label: item.reason for item in kept.all() if item.reason}
        for other in rivals.values():
            own = "+".join(other)
            if costs.get(own, math.inf) >= 1:
                reasons[other] = TOO_LATE if own in costs else failed.get(own) or TOO_LATE
        order = sorted(
            (name for name, other in rivals.items() if other not in reasons),
            key=lambda name: costs["+".join(rivals[name])],
        )
        reasons |= {rivals[name]: NOT_AMONG_THE_BEST for name in order[MOST_COMPARED:]}
        return {name: rivals[name] for name in order[:MOST_COMPARED]}, reasons

    def _first_look(self, label: str, names: list[str], step_s: float) -> tuple[list[str], int]:
        """Which techniques get a first look, and over how many updates. Decided once: a resumed tuning reads it
        back."""
        file = self.stages.folder / "first-look.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if label not in known:
            share_s, each_s = FIRST_LOOK_SHARE * self.stages.left_s(), THREADS_COST * FIRST_RATES * step_s
            most = max(0, math.floor(share_s / (each_s * LEAST_UPDATES)) - 1)
            updates = math.floor(share_s / (each_s * (1 + len(names[:most]))))
            known[label] = {"names": names[:most], "updates": updates}
            write_atomically(file, lambda name: Path(name).write_text(json.dumps(known), encoding="utf-8"))
        return [name for name in known[label]["names"] if name in names], int(known[label]["updates"])

    def _rivals(self, recipe: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """By name, the recipe with each technique that can join it."""
        found = {name: _arranged(names) for name in self.names if (names := joined(recipe, name))}
        found = {name: names for name, names in found.items() if self.stages.can_run(names)}
        too_large = self.stages.too_large(found.values())
        return {name: names for name, names in found.items() if names not in too_large}

    def _beside(self, recipe: tuple[str, ...], promising: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """The promising techniques that go together with the one that has joined."""
        found = {name: names for name in promising if name not in recipe and (names := joined(recipe, name))}
        return {name: _arranged(names) for name, names in found.items() if set(recipe) < set(names)}

    def _step_s(self, recipe: tuple[str, ...]) -> float | None:
        records = [record for heat in self.stages.measured.values() for record in heat]
        labels = ("+".join(recipe) or BASELINE, BASELINE)
        known = (arm.rough_step_time_s(arm.of(records, label)) for label in labels)
        return next((step_s for step_s in known if step_s), None)

    def _compared(
        self, index: int, recipe: tuple[str, ...], rivals: Mapping[str, tuple[str, ...]]
    ) -> tuple[Found, ...]:
        minutes, seed = COMPARED_SHARE * self.stages.left_s() / 60, self.stages.asked.seed
        answer = self._asked(f"learning-{index + 1}", recipe, tuple(rivals.values()), minutes, seed)
        return answer.found if answer else ()

    def _confirmed(self, recipe: tuple[str, ...]) -> Confirmation | None:
        """Compare the recipe with the plain baseline on fresh seeds."""
        begun_s, seed = time.monotonic(), self.stages.asked.seed + FRESH
        # Its script is checked against these losses, which are on the whole text.
        self.stages.measure(
            "replay", (recipe,), confirming.PROTOCOL, repetitions=1, budget_s=REPLAY_S, choose=lambda _: []
        )
        answer = self._asked("confirmation", (), (recipe,), self.stages.left_s() / 60, seed)
        if answer is None:
            return None
        (found,) = answer.found
        is_sound = found.verdict is not Worth.INVALID and found.reason is None
        return Confirmation(
            techniques=recipe,
            whole=_gain(found.time_ratio, found.seeds) if is_sound else Gain(),
            learning_rate=found.rate or 1.0,
            seconds=time.monotonic() - begun_s,
        )

    def _asked(
        self, stage: str, base: tuple[str, ...], compositions: tuple[tuple[str, ...], ...], minutes: float, seed: int
    ) -> Answer | None:
        """The answer to a question of worth. It is kept in a folder of its own, and continues where the tuning was
        interrupted. None if there is no time for it."""
        asked = self.stages.asked
        question = Question(
            workload=asked.workload,
            device=asked.device,
            compositions=compositions,
            minutes=minutes,
            seeds=SEEDS,
            rates=RATES,
            updates=None,
            target=None,
            price_per_hour=None,
            seed=seed,
            base=base,
        )
        folder, question = self._begun(stage, question)
        try:
            asking = Asking(
                question, self.stages.fork_server, folder, _quiet, name=f"{self.stages.folder.name}-{stage}"
            )
            answer = asking.answer()
        except ValueError:
            return None
        worths.Worth(folder, answer).write()
        if answer.interrupted:
            raise KeyboardInterrupt
        return answer

    def _begun(self, stage: str, wanted: Question) -> tuple[Path, Question]:
        """The folder of a question, with the question that was stored there if it was started before. A resumed tuning
        may come to another recipe, whose question gets another folder."""
        for attempt in itertools.count(1):
            folder = self.stages.folder / (stage if attempt == 1 else f"{stage}-{attempt}")
            if not (folder / "asked.json").exists():
                folder.mkdir(exist_ok=True)
                return folder, wanted
            known = Question.read(folder)
            if (known.base, known.compositions) == (wanted.base, wanted.compositions):
                return folder, known
        raise AssertionError


def _quiet(_: object) -> None:
    """Trainings on the way are stored, but not reported line by line."""


def _arranged(names: Iterable[str]) -> tuple[str, ...]:
    """In the order of application, as in records and trainings."""
    return tuple(item.name for item in compose(names))


def _costs(kept: list[Training], label: str) -> dict[str, float]:
    """By label, the time to the recipe's last loss, relative to the recipe's own; arms that did not reach it are left
    out. The figures are rough, because the arms trained at the same time."""
    best = {item.asked.label: item for item in reversed(_by_loss(kept))}
    base = best.get(label)
    if base is None:
        return {}
    target, whole_s = base.held_out_losses[-1], base.updates_s
    found = {}
    for own, item in best.items():
        taken = outcome.crossing(item, target)
        if taken is not None:
            found[own] = taken * item.updates_s / item.updates[-1] / whole_s
    return found


def _by_loss(kept: list[Training]) -> list[Training]:
    whole = [item for item in kept if item.reason is None and item.held_out_losses]
    return sorted(whole, key=lambda item: item.held_out_losses[-1])


def _gain(ratio: Ratio, seeds: int) -> Gain:
    """As a speed-up to the same loss: above 1 is sooner."""
    return Gain(
        speedup=None if ratio.value is None else 1 / ratio.value,
        low=None if ratio.high is None else 1 / ratio.high,
        high=None if ratio.low is None else 1 / ratio.low,
        repetitions=seeds,
    )


def _rung(
    recipe: tuple[str, ...],
    rivals: Mapping[str, tuple[str, ...]],
    compared: Iterable[Found],
    reasons: Mapping[tuple[str, ...], str],
    *,
    seconds: float,
) -> Rung:
    """What the trainings say of each rival, and why others were left out before."""
    found = {item.techniques: item for item in compared}
    tried = []
    for names in rivals.values():
        own = found.get("+".join(names))
        if own is None:
            tried.append(Tried(techniques=names, gain=Gain(), reason=NO_TIME))
            continue
        is_sound = own.verdict is not Worth.INVALID and own.reason is None
        tried.append(
            Tried(
                techniques=names,
                gain=_gain(own.time_ratio, own.seeds) if is_sound else Gain(),
                reason=own.reason or (None if is_sound else own.verdict.value),
                failed=not is_sound,
            )
        )
    best = ladders.best(tried)
    tried += [Tried(techniques=names, gain=Gain(), reason=reason) for names, reason in reasons.items()]
    return Rung(
        before=recipe,
        after=best.techniques if best else recipe,
        tried=tuple(tried),
        late=False,
        seconds=seconds,
        arm_s=0.0,
        objective=Objective.WORTH,
        learning_rate=(found["+".join(best.techniques)].rate if best else None) or 1.0,
    )
