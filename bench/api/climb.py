"""The climb from the baseline to the fastest recipe: which heats are run, and what follows from them."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench import __version__
from bench.api import confirming
from bench.api.learners import Learners
from bench.api.stages import FIRST_SHARE, Stages
from bench.candidates import Candidates, joined
from bench.composition import compose
from bench.facts import Objective
from bench.spec import BASELINE, Protocol
from harness.heats import budget
from harness.record import Record
from reports.text import ladder as text
from results import ladder as ladders
from results.ladder import Confirmation, Ladder, Rung, Tried

PROTOCOL = Protocol(warmup_s=0.8, rounds_s=0.6, timeout_s=180)
"""The protocol of a heat of the climb. It is short, because what tells arms apart is repetitions."""

CLIMB_SHARE = 0.75
"""The share of the time for climbing, until it is known how long an arm takes; the rest confirms what was found."""

CONFIRMING_TAKES = 1.3
"""A confirmed arm takes this many times as long as in the climb, because its rounds and its replay are longer."""

FIRST_RUNG_SHARE, RUNG_SHARE = 0.6, 0.8
"""The largest share of the remaining climbing time that the first rung, and each later one, may take."""

BESIDE, LEAST_RIVALS, MOST_RIVALS = 3, 3, 5
"""Processes of the baseline and the recipe in a heat; the fewest rivals that make a heat worthwhile; and the most, once
a first heat has shown which are promising: a heat with few rivals answers sooner."""

FOCUS_FROM, FOCUS = 2, 4
"""After FOCUS_FROM repetitions of all that may help, only the FOCUS rivals that seem to help most run again. The others
stay undecided, and return in the next heat if none of these joins."""

TOO_SLOW = "its steps take too long to be timed beside the others"
"""The reason given for an arm that was put off: it takes many times as long as others, and would in the next heat
too."""

NOTHING_MORE = "nothing more helps beyond doubt"
NO_TIME = "the time was up"
NOTHING_FITS = "nothing that was tried fits into the allowed memory"

Say = Callable[[str], object]


@dataclass(slots=True, kw_only=True)
class _Course:
    """What the heats so far have shown of each technique: whether it `failed`; whether it was `turned_down`, and so may
    return only when nothing else helps; the recipe beside which it was last `seen` through to a decision; and its
    `promise`, the factor by which it changed the pace. `arm_s` is how long an arm takes."""

    failed: set[str] = dataclasses.field(default_factory=set)
    turned_down: set[str] = dataclasses.field(default_factory=set)
    seen: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    promise: dict[str, float] = dataclasses.field(default_factory=dict)
    arm_s: float = 0.0

    def learn(self, rung: Rung) -> None:
        undecided = {item.label for item in rung.undecided}
        for item in rung.tried:
            (name,) = set(item.techniques) - set(rung.before)
            if item.failed:
                self.failed.add(name)
            if not item.may_join_later:
                self.turned_down.add(name)
            if item.label not in undecided:
                self.seen[name] = rung.before
            if item.gain.speedup is not None:
                self.promise[name] = item.gain.speedup
        self.turned_down -= set(rung.after)
        self.arm_s = rung.arm_s or self.arm_s


def _is_certified(records: Sequence[Record], label: str) -> bool:
    """Whether the arm's first updates were replayed and compared with the baseline's."""
    own = (record.certificate for record in records if record.techniques == label)
    return any(certificate is not None and certificate.first_losses for certificate in own)


def _has_learnt(rungs: Sequence[Rung]) -> bool:
    """Whether a technique that learns faster has joined the recipe."""
    return any(rung.objective is Objective.WORTH and rung.chosen for rung in rungs)


def _learning_rate(confirmation: Confirmation | None, rungs: Sequence[Rung]) -> float:
    """The recipe's learning rate as a factor of the workload's: the one last found to be best."""
    if confirmation:
        return confirmation.learning_rate
    return next((rung.learning_rate for rung in reversed(rungs) if rung.chosen), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """The climb from the baseline to a recipe. If the baseline takes more memory than is allowed, the climb starts with
    the fastest of the compositions in `fitting`. `learners` come last, if the objective is the time to the same
    loss."""

    stages: Stages
    options: Candidates
    say: Say
    fitting: tuple[tuple[str, ...], ...] = ()
    learners: tuple[str, ...] = ()
    course: _Course = dataclasses.field(default_factory=_Course)

    def run(self) -> Ladder:
        """Climb until nothing helps or time runs out, then confirm. If interrupted, return what was found so far."""
        rungs: list[Rung] = []
        confirmation: Confirmation | None = None
        try:
            ended = self._climb(rungs)
            confirmation, ended = self._learnt(rungs, ended)
            if not _has_learnt(rungs) and (recipe := rungs[-1].after if rungs else ()):
                confirmation = confirming.confirmed(self.stages, recipe, rungs, lambda rung: self._tell(rung, rungs))
        except KeyboardInterrupt:
            ended = ladders.INTERRUPTED
        recipe = confirmation.techniques if confirmation else rungs[-1].after if rungs else ()
        if confirmation and not confirmation.whole.helps and not self.fitting:
            recipe = ()
            ended = f"{'+'.join(confirmation.techniques)} seemed to help, but fresh repetitions did not confirm it"
        asked, machine = self.stages.asked, self.stages.prepared.machine
        return Ladder(
            workload=dataclasses.asdict(asked.workload),
            techniques=tuple(item.name for item in compose(recipe)),
            rungs=tuple(self._with_all_that_is_known(rung) for rung in rungs),
            confirmation=confirmation,
            left_out=self.options.left_out,
            allowed=asked.allowed,
            ended=ended,
            device=asked.device,
            device_name=machine.device_name,
            machine_id=machine.machine_id,
            seed=asked.seed,
            seconds=time.monotonic() - self.stages.begun_s,
            version=__version__,
            memory_bytes=asked.memory_bytes if self.fitting else None,
            objective=asked.objective,
            learning_rate=_learning_rate(confirmation, rungs),
        )

    def _with_all_that_is_known(self, rung: Rung) -> Rung:
        """The rung with what all heats together say of it. They say nothing of a rung that trainings decided."""
        if rung.chosen is None or rung.objective is Objective.WORTH:
            return rung
        overall = ladders.overall(rung, list(self.stages.measured.values()), self.stages.by)
        return rung if overall.speedup is None else dataclasses.replace(rung, overall=overall)

    def _learnt(self, rungs: list[Rung], ended: str) -> tuple[Confirmation | None, str]:
        """Add the rungs of techniques that learn faster. Returns their confirmation, and why the climb ended. What
        fresh seeds do not confirm is taken out again: the fastest recipe costs nothing in loss."""
        self.stages.share = 1.0
        if not self.learners:
            return None, ended
        fastest, heats = rungs[-1].after if rungs else (), len(rungs)
        learners = Learners(stages=self.stages, names=self.learners, told=lambda rung: self._tell(rung, rungs))
        found = learners.climb(rungs)
        if found is None:
            return None, NO_TIME if _has_learnt(rungs) else ended
        if found.whole.helps:
            return found, ended
        rungs[heats:] = [dataclasses.replace(rung, before=fastest, after=fastest) for rung in rungs[heats:]]
        return None, f"{'+'.join(found.techniques)} seemed to learn faster, but fresh seeds did not confirm it"

    def outlook(self) -> str:
        """Describe what would be tried, and what would not."""
        first = ["+".join(names) for names in self.fitting] or list(self._rivals((), late=False))
        return text.outlook(self.stages.workload, first, self.options, self.learners, self.stages.asked.minutes)

    def _tell(self, rung: Rung, rungs: Sequence[Rung]) -> None:
        self.say(text.rung(rung, len(rungs)))

    def _climbing_s(self, recipe: tuple[str, ...]) -> float:
        """Seconds left for climbing. The rest is reserved for the confirmation, which measures the recipe without each
        of its techniques, besides the baseline, the recipe and its runner-up."""
        if not self.course.arm_s:
            return self.stages.left_s(CLIMB_SHARE)
        arms = confirming.REPETITIONS * (len(recipe) + 3)
        return self.stages.left_s() - arms * CONFIRMING_TAKES * self.course.arm_s

    def _climb(self, rungs: list[Rung]) -> str:
        """Add rungs until nothing helps; returns why the climb ended."""
        recipe: tuple[str, ...] = ()
        late = False
        if self.fitting:
            rungs.append(self._first_that_fits())
            self._tell(rungs[-1], rungs)
            recipe = rungs[-1].after
            if not recipe:
                return NOTHING_FITS
        while True:
            rivals = self._rivals(recipe, late=late)
            if not rivals and late:
                return NOTHING_MORE
            if not rivals:
                late = True
                continue
            budget_s = (RUNG_SHARE if self.course.arm_s else FIRST_RUNG_SHARE) * self._climbing_s(recipe)
            if budget_s < max(confirming.LEAST_S, 2 * BESIDE * self.course.arm_s):
                return NO_TIME
            chosen = self._begun(len(rungs), recipe) or self._promising(rivals, budget_s)
            rungs.append(self._rung(len(rungs), recipe, chosen, budget_s, late=late))
            self.course.learn(rung := rungs[-1])
            self._tell(rung, rungs)
            if rung.chosen:
                recipe, late = rung.after, False

    def _rivals(self, recipe: tuple[str, ...], *, late: bool) -> dict[str, tuple[str, ...]]:
        """By technique, the recipe with each that may join now; if `late`, with each that waits until nothing else
        helps."""
        course, found = self.course, dict[str, tuple[str, ...]]()
        for name in self.options.names:
            # With the same recipe it would be turned down again.
            is_done = name in recipe or name in course.failed or course.seen.get(name) == recipe
            if is_done or self._waits(name) is not late:
                continue
            names = joined(recipe, name)
            if names and self.stages.can_run(names):
                found[name] = names
        too_large = self.stages.too_large(found.values())
        return {name: names for name, names in found.items() if names not in too_large}

    def _waits(self, name: str) -> bool:
        """Whether the technique is held back as long as others may help."""
        is_second = self.options.waits_for(name) is not None
        return is_second or name in self.course.turned_down or self.options.is_late(name) or self._is_slow(name)

    def _is_slow(self, name: str) -> bool:
        """Whether it multiplies matrices in a number format in which this machine is slower than in float32."""
        rates = self.stages.prepared.machine.matmul_flops_per_s
        compute = self.stages.forecasts.of(self.stages.workload, name).compute
        return compute in rates and rates[compute] < rates.get("float32", 0.0)

    def _begun(self, index: int, recipe: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """By label, the rivals of a heat that was started before the tuning was resumed. They are read back because the
        choice depended on the time that was left."""
        return {"+".join(names): names for names in self.stages.planned(f"rung-{index + 1}") if names != recipe}

    def _promising(self, rivals: Mapping[str, tuple[str, ...]], budget_s: float) -> dict[str, tuple[str, ...]]:
        """By label, as many rivals as there is time for. Those that came nearest to helping come first; those that wait
        for a plainer technique of their kind come last."""
        waits = self.options.waits_for
        order = sorted(rivals, key=lambda name: (waits(name) is not None, -self.course.promise.get(name, 1.0)))
        # All arms of a heat are in memory at once, including the recipe and the baseline's processes.
        most = PROTOCOL.heat_arms - BESIDE
        if self.course.arm_s:
            affordable = int(FIRST_SHARE * budget_s / self.course.arm_s) - BESIDE
            most = min(MOST_RIVALS, max(LEAST_RIVALS, affordable))
        chosen = order[:most] if self.course.arm_s else order
        return {"+".join(rivals[name]): rivals[name] for name in chosen}

    def _first_that_fits(self) -> Rung:
        """One repetition of the compositions that fit where the baseline does not. The fastest of them, whether or not
        it is faster than the baseline, is what later rivals are compared with."""
        begun_s = time.monotonic()
        rivals = {"+".join(names): names for names in self.fitting}
        records, _ = self.stages.measure(
            "rung-1",
            self.fitting,
            PROTOCOL,
            repetitions=1,
            budget_s=self.stages.left_s(FIRST_RUNG_SHARE * CLIMB_SHARE),
            choose=lambda _: [],
        )
        tried = ladders.heat(records, (), rivals, self.stages.asked.memory_bytes, by=self.stages.by)
        sound = [item for item in tried if item.reason is None and item.gain.speedup is not None]
        fastest = max(sound, key=lambda item: item.gain.speedup or 0.0, default=None)
        self.stages.heats.append(((), records))
        return Rung(
            before=(),
            after=fastest.techniques if fastest else (),
            tried=tuple(tried),
            late=False,
            seconds=time.monotonic() - begun_s,
            arm_s=0.0,
        )

    def _rung(
        self,
        index: int,
        recipe: tuple[str, ...],
        rivals: Mapping[str, tuple[str, ...]],
        budget_s: float,
        *,
        late: bool,
    ) -> Rung:
        """One heat: all rivals once, then those that may be the best again, until one is the best or none can be. The
        best joins once its certificate shows that it trains the same model."""
        lead = "+".join(recipe) or BASELINE
        begun_s, limit = time.monotonic(), self.stages.asked.memory_bytes
        beside, elsewhere, by = self.stages.beside(recipe), self.stages.elsewhere(recipe), self.stages.by
        put_off: list[str] = []

        def judged(records: Sequence[Record]) -> list[Tried]:
            tried = ladders.heat(records, recipe, rivals, limit, earlier=beside, lent=elsewhere, by=by)
            return [
                dataclasses.replace(item, reason=TOO_SLOW, failed=True) if item.label in put_off else item
                for item in tried
            ]

        def is_certified(item: Tried, records: Sequence[Record]) -> bool:
            return any(_is_certified(heat, item.label) for heat in (*beside, records))

        def due(records: Sequence[Record]) -> list[str]:
            leader = ladders.best(judged(records))
            return [leader.label] if leader and not is_certified(leader, records) else []

        def choose(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
            tried = judged(records)
            if uncertified := due(records):
                return [(self.stages.workload, [lead, *uncertified])]
            contenders = [item for item in ladders.contenders(tried) if item.is_looked_for]
            if ladders.best(tried) or not contenders:
                return []
            taken = max(item.gain.repetitions for item in contenders)
            if taken >= FOCUS_FROM:
                contenders = sorted(contenders, key=lambda item: -(item.gain.speedup or 0.0))[:FOCUS]
            return [(self.stages.workload, [lead, *(item.label for item in contenders)])]

        records, put_off = self.stages.measure(
            f"rung-{index + 1}",
            (*((recipe,) if recipe else ()), *rivals.values()),
            PROTOCOL,
            repetitions=1,
            budget_s=budget_s,
            choose=choose,
            certify=due,
            lead=lead,
        )
        tried = judged(records)
        best = ladders.best(tried)
        if best and not is_certified(best, records):
            best = None
        self.stages.heats.append((recipe, records))
        cost_s = budget.arm_s(records)
        return Rung(
            before=recipe,
            after=best.techniques if best else recipe,
            tried=tuple(tried),
            late=late,
            seconds=time.monotonic() - begun_s,
            arm_s=cost_s[best.label] if best else statistics.median(cost_s.values()) if cost_s else 0.0,
        )
