"""The way from the baseline to the fastest recipe: which heats are run, and what comes of them."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import __version__
from bench.candidates import Candidates, joined
from bench.composition import compose, unmet
from bench.corpus import cache_folder
from bench.script.recipe import LOSSES
from bench.spec import BASELINE, Plan, Protocol, WorkloadSpec
from harness.heats import budget
from harness.heats.sweep import Choose, Sweep
from harness.preparation.forecast import Forecasts
from harness.preparation.prepared import Prepared
from harness.processes.fork_server import ForkServer
from harness.record import Record, Status
from reports.text import ladder as text
from reports.text.live import Live
from results import ladder as ladders
from results import store
from results.compare import blocks
from results.contrasts import contrasts
from results.ladder import Confirmation, Gain, Ladder, Rung, Tried

PROTOCOL = Protocol(warmup_s=0.8, rounds_s=0.6, timeout_s=180)
"""Of a heat of the climb: short, because repetitions are what tells arms apart."""

CONFIRMING = Protocol(warmup_s=1.0, rounds_s=1.0, timeout_s=180, certify_steps=LOSSES)

CLIMB_SHARE = 0.75
"""Of the time, for climbing, as long as it is not known how long an arm takes; the rest confirms what was found."""

CONFIRMING_TAKES = 1.3
"""An arm that is confirmed takes so many times what it takes in the climb: its rounds and its replay are longer."""

FIRST_RUNG_SHARE, RUNG_SHARE = 0.6, 0.8
"""Of what is left for climbing, the most that the first rung, and each later one, takes."""

FIRST_SHARE = 0.5
"""Of a rung's time, the most that the first look at all its rivals takes."""

LEAST_S = 10.0
"""Nothing is found out in less."""

BESIDE, LEAST_RIVALS = 3, 3
"""Processes of the baseline and the recipe in a heat, and the fewest rivals that are worth one."""

CONFIRMATIONS = 3
"""Repetitions that the confirmation has at least, and as many again where time is left."""

TOO_SLOW = "its steps take too long to be timed beside those of others"
"""What is known of an arm that was put off: it takes many times what others take, and will do so in the next heat."""

NOTHING_MORE = "nothing more helps beyond doubt"
NO_TIME = "the time was up"

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a tuning is asked for, as it is kept for its resumption."""

    workload: WorkloadSpec
    device: str
    minutes: float
    memory_bytes: int | None
    allowed: tuple[str, ...]
    named: tuple[str, ...]
    seed: int

    @classmethod
    def read(cls, folder: Path) -> Asked:
        """Raises ValueError where no tuning was begun."""
        try:
            data = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
            return cls(
                workload=WorkloadSpec.from_json(data.pop("workload")),
                allowed=tuple(data.pop("allowed")),
                named=tuple(data.pop("named")),
                **data,
            )
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{str(folder)!r} has no tuning: give a folder that `trainpace tune` has made") from error

    def write(self, folder: Path) -> None:
        (folder / "asked.json").write_text(json.dumps(dataclasses.asdict(self), indent=2), encoding="utf-8")


def _unproven(found: Confirmation) -> Tried | None:
    """The recipe without a technique that enough fresh repetitions have not shown to help; of several, without the one
    that seems to help least."""
    enough = [item for item in found.without.values() if item.gain.repetitions >= CONFIRMATIONS and item.gain.high]
    idle = [item for item in enough if not item.gain.hurts]
    return max(idle, key=lambda item: item.gain.speedup or 0.0, default=None)


def _runner_up(rungs: Sequence[Rung], recipe: tuple[str, ...]) -> tuple[str, ...] | None:
    """The best of the others that the recipe was held against: what came nearest to joining it, else what it grew
    from; None where that is the baseline."""
    near = [item for rung in rungs if rung.before == recipe for item in rung.tried if item.reason is None]
    known = [item for item in near if item.gain.speedup is not None]
    if known:
        return max(known, key=lambda item: item.gain.speedup or 0.0).techniques
    return next((rung.before for rung in rungs if rung.after == recipe != rung.before), ()) or None


@dataclass(slots=True, kw_only=True)
class _Course:
    """What the heats so far have told of each technique: that it `failed`, that it was `turned_down` and may come again
    only when nothing else helps, beside which recipe it was `seen` to the end, and by what factor it changed the pace,
    its `promise`. `arm_s` is how long an arm takes, and `heats` are the records so far, each with its recipe."""

    failed: set[str] = dataclasses.field(default_factory=set)
    turned_down: set[str] = dataclasses.field(default_factory=set)
    seen: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    promise: dict[str, float] = dataclasses.field(default_factory=dict)
    arm_s: float = 0.0
    heats: list[tuple[tuple[str, ...], list[Record]]] = dataclasses.field(default_factory=list)

    def beside(self, recipe: tuple[str, ...]) -> list[list[Record]]:
        """The heats of this recipe."""
        return [records for before, records in self.heats if before == recipe]

    def elsewhere(self, recipe: tuple[str, ...] | None = None) -> list[dict[str, list[float]]]:
        """The values of all arms in the heats of other recipes, or in all heats."""
        return [block for before, records in self.heats if before != recipe for block in blocks(records)]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """The way from the baseline to a recipe. Every heat is a sweep of its own, kept in a folder of `folder`/records,
    and is not measured again when a tuning goes on."""

    asked: Asked
    prepared: Prepared
    forecasts: Forecasts
    options: Candidates
    fork_server: ForkServer
    folder: Path
    say: Say
    course: _Course = dataclasses.field(default_factory=_Course)
    begun_s: float = dataclasses.field(default_factory=time.monotonic)

    def run(self) -> Ladder:
        """Climb until nothing helps or the time is up, then confirm. Interrupted, it is as far as it has come."""
        rungs: list[Rung] = []
        confirmation: Confirmation | None = None
        try:
            ended = self._climb(rungs)
            recipe = rungs[-1].after if rungs else ()
            confirmation = self._confirmed(recipe, rungs)
        except KeyboardInterrupt:
            ended = ladders.INTERRUPTED
        recipe = confirmation.techniques if confirmation else rungs[-1].after if rungs else ()
        if confirmation and not confirmation.whole.helps:
            recipe = ()
            ended = f"{'+'.join(confirmation.techniques)} seemed to help, and fresh repetitions did not confirm it"
        machine = self.prepared.machine
        return Ladder(
            workload=dataclasses.asdict(self.asked.workload),
            techniques=tuple(item.name for item in compose(recipe)),
            rungs=tuple(rungs),
            confirmation=confirmation,
            left_out=self.options.left_out,
            allowed=self.asked.allowed,
            ended=ended,
            device=self.asked.device,
            device_name=machine.device_name,
            machine_id=machine.machine_id,
            seed=self.asked.seed,
            seconds=time.monotonic() - self.begun_s,
            version=__version__,
        )

    def outlook(self) -> str:
        """What would be tried, and what not."""
        first = list(self._rivals((), late=False))
        return text.outlook(self._name, first, self.options, self.asked.minutes)

    def _left_s(self, share: float) -> float:
        return self.begun_s + share * 60 * self.asked.minutes - time.monotonic()

    def _climbing_s(self, recipe: tuple[str, ...]) -> float:
        """What is left for climbing: the confirmation takes each of the recipe's techniques out once, beside the
        baseline, the recipe and its runner-up."""
        if not self.course.arm_s:
            return self._left_s(CLIMB_SHARE)
        return self._left_s(1.0) - CONFIRMATIONS * (len(recipe) + 3) * CONFIRMING_TAKES * self.course.arm_s

    def _climb(self, rungs: list[Rung]) -> str:
        """Add rungs until nothing helps; returns why it ends."""
        recipe: tuple[str, ...] = ()
        late = False
        while True:
            rivals = self._rivals(recipe, late=late)
            if not rivals and late:
                return NOTHING_MORE
            if not rivals:
                late = True
                continue
            budget_s = (RUNG_SHARE if self.course.arm_s else FIRST_RUNG_SHARE) * self._climbing_s(recipe)
            if budget_s < max(LEAST_S, 2 * BESIDE * self.course.arm_s):
                return NO_TIME
            chosen = self._begun(len(rungs), recipe) or self._promising(rivals, budget_s)
            rungs.append(self._rung(len(rungs), recipe, chosen, budget_s, late=late))
            self.course.learn(rung := rungs[-1])
            self.say(text.rung(rung, len(rungs)))
            if rung.chosen:
                recipe, late = rung.after, False

    def _rivals(self, recipe: tuple[str, ...], *, late: bool) -> dict[str, tuple[str, ...]]:
        """By technique, the recipe with each that may join now, or `late` with those that wait until nothing else
        helps."""
        course, found = self.course, dict[str, tuple[str, ...]]()
        for name in self.options.names:
            # Beside the same recipe it would be turned down again.
            is_done = name in recipe or name in course.failed or course.seen.get(name) == recipe
            if is_done or self._waits(name) is not late:
                continue
            names = joined(recipe, name)
            if names and self._reason(names) is None:
                found[name] = names
        return found

    def _waits(self, name: str) -> bool:
        """Whether it is not tried as long as others may help."""
        is_second = self.options.waits_for(name) is not None
        return is_second or name in self.course.turned_down or self.options.is_late(name)

    def _begun(self, index: int, recipe: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """By label, the rivals of a heat that was begun before the tuning went on: who they were hung on the time."""
        plan = self.folder / "records" / f"rung-{index + 1}" / "plan.json"
        if not plan.exists():
            return {}
        kept = Plan.from_json(json.loads(plan.read_text(encoding="utf-8"))).compositions
        return {"+".join(names): names for names in kept if names != recipe}

    def _promising(self, rivals: Mapping[str, tuple[str, ...]], budget_s: float) -> dict[str, tuple[str, ...]]:
        """By label, as many of the rivals as there is time for, those first that came nearest to helping
        before, and last the other ways of doing what has joined."""
        waits = self.options.waits_for
        order = sorted(rivals, key=lambda name: (waits(name) is not None, -self.course.promise.get(name, 1.0)))
        # They are in memory beside each other, the baseline's processes and the recipe among them.
        most = PROTOCOL.heat_arms - BESIDE
        if self.course.arm_s:
            most = min(most, max(LEAST_RIVALS, int(FIRST_SHARE * budget_s / self.course.arm_s) - BESIDE))
        chosen = order[:most] if self.course.arm_s else order
        return {"+".join(rivals[name]): rivals[name] for name in chosen}

    def _reason(self, names: tuple[str, ...]) -> str | None:
        """Why the composition is not tried."""
        if reason := unmet(compose(names), self.prepared.host, self.asked.workload.phase):
            return reason
        size = self.forecasts.of(self._name, "+".join(names)).peak_bytes
        limit = self.asked.memory_bytes
        return f"needs {size / 1e9:.3g} GB" if size and limit and size > limit else None

    @property
    def _name(self) -> str:
        return self.asked.workload.name

    def _rung(
        self,
        index: int,
        recipe: tuple[str, ...],
        rivals: Mapping[str, tuple[str, ...]],
        budget_s: float,
        *,
        late: bool,
    ) -> Rung:
        """One heat: all rivals once, then again those that may be the best, until one is or none can be."""
        lead = "+".join(recipe) or BASELINE
        begun_s = time.monotonic()

        beside, elsewhere = self.course.beside(recipe), self.course.elsewhere(recipe)
        put_off: list[str] = []

        def judged(records: Sequence[Record]) -> list[Tried]:
            tried = ladders.heat(records, recipe, rivals, self.asked.memory_bytes, earlier=beside, lent=elsewhere)
            return [
                dataclasses.replace(item, reason=TOO_SLOW, failed=True) if item.label in put_off else item
                for item in tried
            ]

        def choose(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
            tried = judged(records)
            contenders = ladders.contenders(tried)
            taken = max((item.gain.repetitions for item in contenders), default=0)
            if ladders.best(tried) or not contenders or taken >= ladders.MOST_REPETITIONS:
                return []
            return [(self._name, [lead, *(item.label for item in contenders)])]

        records, put_off = self._measure(
            f"rung-{index + 1}",
            (*((recipe,) if recipe else ()), *rivals.values()),
            PROTOCOL,
            repetitions=1,
            budget_s=budget_s,
            choose=choose,
            lead=lead,
        )
        tried = judged(records)
        best = ladders.best(tried)
        self.course.heats.append((recipe, records))
        cost_s = budget.arm_s(records)
        return Rung(
            before=recipe,
            after=best.techniques if best else recipe,
            tried=tuple(tried),
            late=late,
            seconds=time.monotonic() - begun_s,
            arm_s=cost_s[best.label] if best else statistics.median(cost_s.values()) if cost_s else 0.0,
        )

    def _confirmed(self, recipe: tuple[str, ...], rungs: list[Rung]) -> Confirmation | None:
        """The recipe on fresh repetitions. Where another is better there beyond doubt, or does as well with one
        technique less, that is one more rung, and is confirmed on fresh ones in its turn while there is time."""
        if not recipe:
            return None
        attempt = 0
        while True:
            begun_s = time.monotonic()
            found, better = self._confirmation(attempt, recipe, _runner_up(rungs, recipe))
            attempt += 1
            following = better or _unproven(found)
            if following is None or not following.techniques or self._left_s(1.0) < LEAST_S:
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
            self.say(text.rung(rungs[-1], len(rungs)))
            recipe = following.techniques

    def _confirmation(
        self, attempt: int, recipe: tuple[str, ...], runner_up: tuple[str, ...] | None
    ) -> tuple[Confirmation, Tried | None]:
        """What fresh repetitions say, and what was better than the recipe in them."""
        label, begun_s = "+".join(recipe), time.monotonic()
        without = {name: tuple(other for other in recipe if other != name) for name in recipe}
        others = {"+".join(names): names for names in (*without.values(), runner_up) if names}
        # Of earlier heats nothing counts but how much processes of one arm differ.
        lent = self.course.elsewhere()

        def judged(records: Sequence[Record]) -> dict[str, Tried]:
            return {item.label: item for item in ladders.heat(records, recipe, others | {BASELINE: ()}, lent=lent)}

        def choose(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
            taken = len({record.repetition for record in records if not record.disturbed})
            # What is better already is to be confirmed in the time that is left.
            is_enough = taken >= 2 * CONFIRMATIONS or ladders.best(list(judged(records).values())) is not None
            return [] if is_enough else [(self._name, [label, *others])]

        records, _ = self._measure(
            f"confirmation-{attempt + 1}",
            (recipe, *(names for names in others.values() if names != recipe)),
            CONFIRMING,
            repetitions=CONFIRMATIONS,
            budget_s=max(1.0, self._left_s(1.0)),
            choose=choose,
            lead=label,
        )
        own = [record for record in records if record.techniques == label]
        against_baseline = contrasts(blocks(records), BASELINE, [label], lent)
        is_sound = all(record.status is Status.OK for record in own)
        whole = ladders.gain(against_baseline.get(label), own) if is_sound else Gain()
        against = judged(records)
        found = Confirmation(
            techniques=recipe,
            whole=whole,
            without={name: against["+".join(names) or BASELINE] for name, names in without.items()},
            runner_up=against["+".join(runner_up)] if runner_up else None,
            peak_memory_bytes={
                name: ladders.peak_memory_bytes([record for record in records if record.techniques == name])
                for name in (BASELINE, label)
            },
            seconds=time.monotonic() - begun_s,
        )
        better = ladders.best([item for name, item in against.items() if name != label])
        return found, better

    def _measure(
        self,
        stage: str,
        compositions: Iterable[tuple[str, ...]],
        protocol: Protocol,
        *,
        repetitions: int,
        budget_s: float,
        choose: Choose,
        lead: str = BASELINE,
    ) -> tuple[list[Record], list[str]]:
        """A sweep in a folder of its own, with what was measured there before; and the labels of the arms whose steps
        take too long for the time that there is."""
        folder = self.folder / "records" / stage
        folder.mkdir(parents=True, exist_ok=True)
        finished = store.read(folder) if store.has_records(folder) else []
        done = folder / "done.json"
        if done.exists():
            return finished, json.loads(done.read_text(encoding="utf-8"))
        plan = dataclasses.replace(
            self.prepared.plan,
            name=stage,
            compositions=tuple(compositions),
            protocol=protocol.on(self.asked.device),
            repetitions=repetitions,
            budget_s=budget_s,
        )
        (folder / "plan.json").write_text(json.dumps(plan.to_json(), indent=2), encoding="utf-8")
        prepared = dataclasses.replace(self.prepared, plan=plan, unsupported={})
        with Live(plan) as live:

            def keep(record: Record) -> None:
                store.write(record, folder, machine=prepared.machine, plan=plan)
                live.record(record)

            sweep = Sweep(
                prepared,
                run_id=f"{self.folder.name}-{stage}",
                keep=keep,
                choose=choose,
                show=live.progress,
                finished=finished,
                earlier=[record for _, records in self.course.heats for record in records],
                # How long it takes to compile is not asked here, and what many arms compile is the same.
                shared_cache=cache_folder() / "compiled",
                forecasts=self.forecasts,
                takes_up=False,
                first_share=FIRST_SHARE if repetitions == 1 else 1.0,
                lead=lead,
                log=(self.folder / "arms.log").resolve(),
            )
            sweep.run(self.fork_server)
        put_off = [label for _, label in sweep.put_off]
        done.write_text(json.dumps(put_off), encoding="utf-8")
        return sweep.records, put_off
