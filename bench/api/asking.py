"""From a question, what techniques are worth, to its answer: a heat, a search for learning rates, and trainings."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import __version__, plain
from bench.api.kept import Kept
from bench.api.runs import measure
from bench.causes import Unfinished
from bench.composition import compose
from bench.spec import BASELINE, Plan, Protocol, WorkloadSpec
from harness.learning.curve import Asked, Training
from harness.learning.training import Trainings, divided
from harness.preparation.prepared import prepare
from harness.preparation.pretrain import pretrain
from harness.processes.fork_server import ForkServer
from harness.record import Record
from reports.text import worth as text
from results import arm, store
from results import worth as outcome
from results.compare import blocks
from results.contrasts import contrasts
from results.worth import EXACT, Answer, Found, Ratio

PROTOCOL = Protocol()
"""The protocol of the heat that measures how long updates take."""

PROBED = 30
"""Updates of the baseline that are timed to find out how many updates there is time for."""

PACE_SHARE = 0.2
"""The largest share of the time that this heat may take."""

ARM_S = 20.0
"""Seconds per arm that this heat may take, however little time there is."""

GOES_ON = 1.4
"""Compared trainings go on until they reach the target loss. Until it is known how long that takes, it is assumed to be
this many times the updates after which the baseline's median seed reaches it."""

OF_TUNING = 1000
"""Added to the seed: learning rates are chosen on other seeds than those that are compared."""

LEAST_UPDATES, LEAST_SEEDS = 50, 3

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The question, as it is stored. Arms are compared with `base`; an empty one is the plain baseline. The target is
    the base's loss after `updates`, which is None until it is known how many there is time for."""

    workload: WorkloadSpec
    device: str
    compositions: tuple[tuple[str, ...], ...]
    minutes: float
    seeds: int
    rates: int
    updates: int | None
    target: float | None
    price_per_hour: float | None
    seed: int
    base: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Question:
        """Read the question stored in a folder. Raises ValueError if there is none."""
        try:
            return plain.read(cls, json.loads((folder / "asked.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{str(folder)!r} is not a folder of `trainpace worth` ({error}): give one that it made"
            ) from error

    def write(self, folder: Path) -> None:
        (folder / "asked.json").write_text(json.dumps(dataclasses.asdict(self), indent=2), encoding="utf-8")


class Asking:
    """From the question to the answer: the pace of all arms, a learning rate for each, and the trainings that are
    compared."""

    def __init__(
        self, question: Question, fork_server: ForkServer, folder: Path, say: Say, *, name: str | None = None
    ) -> None:
        """`name` identifies the records; by default it is the folder's name. Raises ValueError for what cannot be
        measured."""
        self.question, self._fork_server, self._folder, self._say = question, fork_server, folder, say
        self._name = name or folder.name
        self._begun_s = time.monotonic()
        plan = Plan(
            name="pace",
            workloads=(question.workload,),
            compositions=(*((question.base,) if question.base else ()), *question.compositions),
            device=question.device,
            budget_s=max(PACE_SHARE * 60 * question.minutes, ARM_S * (1 + len(question.compositions))),
            seed=question.seed,
            protocol=PROTOCOL.with_energy(question.device),
        )
        prepared = prepare(plan, fork_server)
        self._entry, self._held_out = divided(prepared.entries[0], fork_server)
        self._prepared = dataclasses.replace(prepared, entries=(self._entry,))
        self._trainings = Trainings(prepared.host, self._entry, fork_server, folder / "arms.log")

    def outlook(self) -> str:
        """Describe what would be trained, and what would not."""
        trained = [_label(names) for names in self._trained()]
        paced = [_label(names) for names in self.question.compositions if self._learns_alike(names)]
        unable = {label: reason for (_, label), reason in self._prepared.unsupported.items()}
        return text.outlook(
            self.question.workload.name,
            [label for label in trained if label not in unable],
            [label for label in paced if label not in unable],
            unable,
            rates=self.question.rates,
            seeds=self.question.seeds,
            minutes=self.question.minutes,
            held_out=self._held_out["samples"],
        )

    def answer(self) -> Answer:
        """Measure and train, and return the answer; if interrupted, as far as it got."""
        is_interrupted = False
        self.question.write(self._folder)
        records: list[Record] = []
        try:
            records = self._pace()
            self._learn(records)
        except KeyboardInterrupt:
            is_interrupted = True
        return self._told(records, is_interrupted)

    def _pace(self) -> list[Record]:
        folder = self._folder / "pace"
        if self._kept("tuning").all():
            return store.read(folder)  # The pace was measured before anything was trained.
        try:
            return measure(self._fork_server, self._prepared, folder, f"{self._name}-pace").records
        except Unfinished as failure:
            if failure.interrupted:
                raise KeyboardInterrupt from None
            raise

    def _learn(self, records: Sequence[Record]) -> None:
        base = self.question.base
        trained = [
            names for names in self._trained() if names == base or not arm.failure(arm.of(records, _label(names)))
        ]
        for names in trained:
            pretrain(self._entry, names, self.question.device, self._fork_server, lambda: None)
        if self.question.updates is None:
            self.question = dataclasses.replace(self.question, updates=self._affordable(records, trained))
            self.question.write(self._folder)
        updates = self.question.updates or 0
        self._say(
            f"{updates} updates per training: {self.question.rates} learning rates for each of {len(trained)} arms, "
            f"then {self.question.seeds} seeds, each trained until it reaches the loss"
        )
        for _ in range(self.question.rates):
            rates = self._kept("tuning").next_rates(
                trained, self.question.rates, seed=self.question.seed + OF_TUNING, updates=updates
            )
            self._train("tuning", rates)
            self._check_target()
        best = {names: outcome.best_rate(self._kept("tuning").all(), _label(names)) for names in trained}
        asked = {
            names: Asked(techniques=names, seed=self.question.seed, rate=rate, updates=updates)
            for names, rate in best.items()
            if rate is not None
        }
        seeds = range(self.question.seed, self.question.seed + self.question.seeds)
        # The baseline comes first: all arms train on to the loss that it reaches.
        self._train("compared", [dataclasses.replace(asked[base], seed=seed) for seed in seeds if base in asked])
        target, took_s = self._target(), 0.0
        for number, seed in enumerate(seeds):
            if target is None or (number >= LEAST_SEEDS and self._left_s() < took_s):
                return
            begun_s = time.monotonic()
            done = {
                item.asked.label
                for item in self._compared()
                if item.asked.seed == seed and outcome.reaches(item, target)
            }
            due = [item for item in asked.values() if item.label not in done]
            self._train("compared", [dataclasses.replace(item, seed=seed, until_loss=target) for item in due])
            took_s = time.monotonic() - begun_s

    def _check_target(self) -> None:
        """Raises ValueError if a training starts at the target loss, where there is nothing to compare."""
        first = [item.held_out_losses[0] for item in self._kept("tuning").all() if item.updates[:1] == (0,)]
        if self.question.target is not None and first and min(first) <= self.question.target:
            raise ValueError(
                f"target {self.question.target:g} is not below the loss that training starts from ({min(first):.4g}): "
                "give a lower --target"
            )

    @property
    def _base(self) -> str:
        return _label(self.question.base)

    def _compared(self) -> list[Training]:
        return outcome.longest(self._kept("compared").all())

    def _paired(self) -> list[Training]:
        """The trainings on seeds that other arms were trained on too, if there are any. When time runs out, the
        baseline has been trained on more seeds: those helped to set the target loss, but there is nothing to compare
        them with."""
        compared = self._compared()
        seeds = {item.asked.seed for item in compared if item.asked.label != self._base}
        return [item for item in compared if not seeds or item.asked.seed in seeds]

    def _target(self) -> float | None:
        if self.question.target is not None or not self.question.updates:
            return self.question.target
        return outcome.usual_loss(self._kept("compared").all(), self.question.updates, self._base)

    def _left_s(self) -> float:
        return self._begun_s + 60 * self.question.minutes - time.monotonic()

    def _trained(self) -> list[tuple[str, ...]]:
        """The compositions to train: the baseline, and those that do not learn exactly as it does."""
        return [self.question.base, *(names for names in self.question.compositions if not self._learns_alike(names))]

    def _learns_alike(self, names: Sequence[str]) -> bool:
        """Whether it differs from the baseline by rounding only. The heat's certificate has shown that it is indeed no
        more."""
        own, base = compose(names), compose(self.question.base)
        apart = [*(item for item in own if item not in base), *(item for item in base if item not in own)]
        return all(item.is_numerics_only for item in apart)

    def _kept(self, purpose: str) -> Kept:
        return Kept(self._folder, purpose)

    def _train(self, purpose: str, wanted: Sequence[Asked]) -> None:
        self._kept(purpose).train(self._trainings, wanted, lambda item: self._say(text.trained(item, purpose)))

    def _affordable(self, records: Sequence[Record], trained: Collection[tuple[str, ...]]) -> int:
        """How many updates per training there is time for. Raises ValueError if they are too few to learn from."""
        steps_s = {names: arm.rough_step_time_s(arm.of(records, _label(names))) for names in trained}
        usual_s = steps_s[self.question.base]
        if usual_s is None:
            raise ValueError(f"{self.question.workload.name} was not timed: {arm.failure(arm.of(records, self._base))}")
        # Train as many at once as the real trainings will.
        at_once = self._trainings.at_once
        probes = list(
            self._trainings.run(
                [
                    Asked(
                        techniques=self.question.base,
                        seed=self.question.seed + OF_TUNING + number,
                        rate=1.0,
                        updates=PROBED,
                    )
                    for number in range(at_once)
                ]
            )
        )
        if broken := next((probe for probe in probes if probe.reason), None):
            raise ValueError(f"{self.question.workload.name} cannot be trained: {broken.reason}")
        other_s, update_s = (statistics.fmean(times_s) for times_s in zip(*map(_costs_s, probes), strict=True))
        rates, seeds = self.question.rates, self.question.seeds
        left_s = at_once * self._left_s() - len(trained) * (rates + seeds) * other_s
        longer = sum((step_s or usual_s) / usual_s for step_s in steps_s.values())
        updates = math.floor(left_s / (update_s * longer * (rates + GOES_ON * seeds)))
        if updates < LEAST_UPDATES:
            raise ValueError(
                f"{self.question.minutes:g} minutes leave {max(0, updates)} updates per training of {len(trained)} "
                f"arms with {self.question.rates} learning rates and {self.question.seeds} seeds: give --minutes "
                f"{math.ceil(self.question.minutes * LEAST_UPDATES / max(updates, 1))} or more, or fewer --technique"
            )
        return updates

    def _told(self, records: Sequence[Record], is_interrupted: bool) -> Answer:
        tuned, compared, target = self._kept("tuning").all(), self._paired(), self._target()
        found: dict[str, Found] = {}
        joules, base = _joules_per_update(records, compared, self._base), self._base
        if target is not None:
            updates_ratios = outcome.updates_ratios(compared, target, base)
            tokens = _tokens_per_update(compared)
            steps = outcome.step_ratios(contrasts(blocks(records), base), tokens, base)
            for names in (self.question.base, *self.question.compositions):
                label, is_base = _label(names), names == self.question.base
                alike = not is_base and self._learns_alike(names)
                found[label] = outcome.found(
                    label,
                    trainings=compared,
                    tuned=tuned,
                    target=target,
                    updates_ratio=EXACT if alike or is_base else updates_ratios.get(label, Ratio()),
                    step_ratio=EXACT if is_base else steps.get(label, Ratio()),
                    joules_ratio=Ratio(value=joules[label] / joules[base]) if label in joules else Ratio(),
                    step_time_s=arm.step_time_s(arm.of(records, label)),
                    failure=arm.failure(arm.of(records, label)),
                    learns_alike=alike,
                    baseline=base,
                )
        return Answer(
            workload=dataclasses.asdict(self.question.workload),
            device=self.question.device,
            device_name=self._prepared.machine.device_name,
            target=target,
            updates=self.question.updates if self.question.target is None else None,
            price_per_hour=self.question.price_per_hour,
            baseline=found.pop(base, None),
            found=tuple(found.values()),
            trainings=tuple(compared),
            joules_per_update=joules,
            bytes_per_token=self._held_out["bytes_per_token"],
            seconds=time.monotonic() - self._begun_s,
            version=__version__,
            interrupted=is_interrupted,
        )


def _label(names: Sequence[str]) -> str:
    return "+".join(names) or BASELINE


def _costs_s(probe: Training) -> tuple[float, float]:
    """Seconds that a training takes apart from its updates, and seconds per update."""
    return probe.other_s, probe.updates_s / probe.updates[-1]


def _tokens_per_update(trainings: Sequence[Training]) -> dict[str, float]:
    """By label. If the data is not text, samples are counted instead."""
    return {
        item.asked.label: tokens
        for item in trainings
        if (tokens := item.tokens_per_update or item.samples_per_update) is not None
    }


def _joules_per_update(records: Sequence[Record], trainings: Sequence[Training], base: str) -> dict[str, float]:
    """By label, if the machine counts energy."""
    tokens = _tokens_per_update(trainings)
    found: dict[str, float] = {}
    for label in dict.fromkeys(record.techniques for record in records):
        joules, usual = arm.joules_per_token(arm.of(records, label)), tokens.get(label, tokens.get(base))
        if joules is not None and usual is not None:
            found[label] = joules * usual
    return found if base in found else {}
