"""One repetition of one workload in a sweep: which arms share memory, and which ones there is time for.

All rivals are compared with the baseline, or with another arm, the lead, which is why that arm has several processes.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.host import rival_bytes
from bench.spec import BASELINE, Protocol, Trial
from harness.heats.arm import Arm
from harness.heats.heat import Heat, own_cache
from harness.heats.rounds import Rounds, run_rounds
from harness.message import Message
from harness.processes.fork_server import ForkServer
from harness.record import Record, Status
from harness.telemetry import cgroups
from harness.timing.turns import round_count, turn_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """What a repetition is run with, besides the heat itself. `record` is the template for the records of its arms.

    `compile_caches` is a folder with one cache for each arm, and `toolchain` the cache that each starts as a copy of;
    `shared_cache`, if given, is one for all of them. `own` holds, by label, request fields for that arm alone. `alone`
    are the labels of arms that cannot share memory with others. `start_s` is how long arms may take to be warm, by
    label. After `deadline_s`, on the clock of time.monotonic, no more rivals are started; a rival that turns out to
    need more than `most_s` once it is warm is put off. With `replay`, arms replay their first updates.
    `predicted_bytes` is how much of a device the arms' tensors will take, by label, if known. The rival with the label
    `lead`, which others are also compared with, is among the first to start.
    """

    fork_server: ForkServer
    record: Record
    compile_caches: Path
    toolchain: Path | None = None
    shared_cache: Path | None = None
    own: Mapping[str, Message] = dataclasses.field(default_factory=dict)
    alone: Collection[str] = ()
    start_s: Mapping[str, float] = dataclasses.field(default_factory=dict)
    deadline_s: float = math.inf
    most_s: float = math.inf
    replay: bool = True
    predicted_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    lead: str = BASELINE


class Race:
    """One repetition. `run` may be called once. `put_off` holds, by label, the seconds that an arm would have taken
    once it was warm, if they were too many."""

    def __init__(self, heat: Heat, lineup: Lineup) -> None:
        self._heat, self._lineup = heat, lineup
        self._time = _Time(heat, lineup)
        self.put_off: dict[str, float] = {}

    def run(self, baseline: Trial, rivals: Sequence[Trial]) -> Iterator[Record]:
        """Yield one record for each arm. The baseline has one in each part that the heat is split into, the lead one
        for each of its processes in each part.

        A heat is split if its arms do not fit in memory at once, or exceed the protocol's `heat_arms`. An arm that ran
        out of memory among others runs once more with the baseline alone; if it does not fit then either, it is
        measured with one arm in memory at a time. Rivals that there is no time left for, and those that are put off,
        have no record.
        """
        waiting = [trial for trial in rivals if trial.label not in self._lineup.alone]
        alone = [trial for trial in rivals if trial.label in self._lineup.alone]
        crowded_out: list[Trial] = []
        self._heat.draw.shuffle(waiting)
        first = part = self._lineup.record.heat_part
        while waiting or crowded_out or (part == first and not alone):
            candidates = waiting if waiting or not crowded_out else [crowded_out.pop()]
            if part > first and not self._time.allows([baseline, candidates[0]]):
                return
            arms = self._admit(baseline, candidates)
            if len(arms) == 1 and candidates and not self.put_off and self._time.allows(candidates[:1], arms):
                # There was time, so memory is what was lacking.
                arms[0].end()
                alone += candidates
                candidates.clear()
                continue
            found = run_rounds(self._heat, arms)
            self._heat.certify(arms, replay=self._lineup.replay)
            for arm in arms:
                if arm.status is Status.OOM and arm.trial.techniques and not arm.trial.copy:
                    (crowded_out if len(arms) > 2 else alone).append(arm.trial)
                elif arm.status is not Status.OOM or not arm.trial.copy:
                    yield self._record(arm, found, heat_part=part)
            part += 1
            if len(arms) == 1 and candidates:
                return
        if alone and (part == first or self._time.allows([baseline, alone[0]])):
            yield from self._one_at_a_time([baseline, *alone], part)

    def arm(self, trial: Trial) -> Arm:
        """A new arm. It has its own compile cache, so that no arm profits from what another compiled, unless nobody is
        interested in compile times."""
        lineup = self._lineup
        cache = lineup.shared_cache or own_cache(lineup.compile_caches, f"{lineup.record.workload} {trial.label}")
        return self._heat.arm(trial, cache, toolchain=lineup.toolchain, **lineup.own.get(trial.label, {}))

    def _admit(self, baseline: Trial, waiting: list[Trial]) -> list[Arm]:
        """Start the baseline and as many waiting rivals as memory and time allow, and take those off the list. The lead
        (the baseline, unless a rival is) gets further processes.

        The starting order is random, because it matters: the first arm was seen to be three per cent slower than the
        others for as long as it lived. The baseline comes first only if there would be no room for it otherwise.
        Returns the baseline first and the further processes last.
        """
        protocol = self._heat.protocol
        most = max(2, protocol.heat_arms)
        rivals = waiting[: most - baselines(protocol, min(len(waiting), most - 1))]
        lead = next((trial for trial in rivals if trial.label == self._lineup.lead), baseline)
        further = [lead] * (baselines(protocol, len(rivals)) - 1)
        line = [baseline, *rivals, *further]
        arms = self._start(self._drawn(line))
        reference = next((arm for arm in arms if arm.trial == baseline), None)
        if reference is None or (reference.status is Status.OOM and arms.index(reference)):
            for arm in arms:
                arm.end()
            arms = self._start([trial for trial in line if trial.label not in self.put_off])
        started = [arm.trial for arm in arms]
        waiting[:] = [trial for trial in waiting if trial not in started and trial.label not in self.put_off]
        return sorted(arms, key=lambda arm: (arm.trial.copy > 0, arm.trial.techniques != ()))

    def _drawn(self, line: Sequence[Trial]) -> list[Trial]:
        """A random order, except that the lead starts early, while there is time; not first, which was seen to
        matter."""
        drawn = self._heat.draw.sample(line, len(line))
        lead = next((trial for trial in drawn if trial.techniques and trial.label == self._lineup.lead), None)
        if lead is not None:
            drawn.remove(lead)
            drawn.insert(1, lead)
        return drawn

    def _start(self, line: Sequence[Trial]) -> list[Arm]:
        """Start the trials in this order until memory or time is used up, or would be without the baseline, which then
        comes next and last. A further process of an arm never takes what a rival in the line would need."""
        arms: list[Arm] = []
        largest_bytes, pending = 0, list(line)
        while pending:
            trial = pending.pop(0)
            has_baseline = any(not arm.trial.techniques for arm in arms)
            copies = sum(arm.trial.techniques == trial.techniques for arm in arms)
            if copies:
                trial = dataclasses.replace(trial, copy=copies)
                more = [trial, *(other for other in pending if other.techniques != trial.techniques)]
            elif has_baseline or not trial.techniques:
                more = [trial]
            else:
                more = [trial, next(other for other in pending if not other.techniques)]
            # Arms that have started show how much an arm needs besides its tensors.
            predicted_bytes = max(self._lineup.predicted_bytes.get(other.label, 0) for other in more)
            need_bytes = rival_bytes(self._heat.host.device, max(largest_bytes, predicted_bytes))
            room = free_bytes(self._heat.host.device, arms) // need_bytes if need_bytes and arms else len(more)
            if room < len(more) or not self._time.allows(more, arms):
                if trial.copy:
                    continue
                if has_baseline or not room:
                    return arms
                trial = next(other for other in (trial, *pending) if not other.techniques)
                pending.clear()
            self._heat.show(trial.label, "warm-up")
            arm = self._started(trial, arms)
            if trial.techniques and arm.alive and (owed_s := least_s(arm)) > self._lineup.most_s:
                arm.end()
                self.put_off[trial.label] = owed_s
                continue
            self._time.spent(arm)
            arms.append(arm)
            largest_bytes = max(largest_bytes, arm.memory_bytes() // arm.world_size)
        return arms

    def _started(self, trial: Trial, parked: Sequence[Arm]) -> Arm:
        arm = self.arm(trial)
        self._heat.start(arm, self._lineup.fork_server, parked, window=True)
        return arm

    def _one_at_a_time(self, trials: Sequence[Trial], part: int) -> Iterator[Record]:
        """Run each arm from start to end with no other arm there, in random order. The baseline is the first trial."""
        reference: Arm | None = None
        done: list[tuple[Arm, Rounds]] = []
        for trial in self._heat.draw.sample(list(trials), len(trials)):
            if trial is not trials[0] and not self._time.allows([trial] if reference else [trial, trials[0]]):
                continue
            self._heat.show(trial.label, "by itself")
            arm = self._started(trial, ())
            self._time.spent(arm)
            found = run_rounds(self._heat, [arm])
            arm.attest(arm.replay_steps if self._lineup.replay else 0)
            arm.end()
            done.append((arm, found))
            if trial is trials[0]:
                reference = arm
            if reference is not None:
                for finished, rounds in done:
                    finished.hold_against(reference)
                    yield self._record(finished, rounds, heat_part=part, alone=True)
                done.clear()
            time.sleep(self._heat.protocol.pause_s)

    def _record(self, arm: Arm, found: Rounds, *, heat_part: int, alone: bool = False) -> Record:
        """The arm's record, including which rounds count."""
        return arm.record(
            dataclasses.replace(
                self._lineup.record,
                heat_part=heat_part,
                alone=alone,
                dropped_rounds=found.dropped,
                disturbances=found.disturbances,
                disturbed=found.is_disturbed(self._heat.protocol.rounds_min),
            )
        )


class _Time:
    """The time left until no more rivals are started.

    An arm is assumed to take as long to warm up as in an earlier heat, or else as long as the mean of this one. Its
    replay is assumed to take as long again, divided by the number of arms that replay at once.
    """

    def __init__(self, heat: Heat, lineup: Lineup) -> None:
        self._deadline_s, self._rounds_s = lineup.deadline_s, heat.protocol.rounds_s
        self._start_s, self._starts_s = lineup.start_s, list[float]()
        self._replays = (1 / heat.certified_at_once) if lineup.replay else 0.0

    def spent(self, arm: Arm) -> None:
        """Learn from an arm that has started."""
        if arm.alive:
            self._starts_s.append(arm.measurement.active_s)

    def allows(self, more: Sequence[Trial], begun: Sequence[Arm] = ()) -> bool:
        """Whether these can be started too, with time left to finish all that have begun."""
        mean_s = statistics.fmean(self._starts_s) if self._starts_s else 0.0
        starts_s = [self._start_s.get(trial.label, mean_s) for trial in more]
        begun_s = [arm.measurement.active_s for arm in begun if arm.alive]
        owed_s = sum(self._rounds_s + self._replays * start_s for start_s in (*starts_s, *begun_s))
        return time.monotonic() + sum(starts_s) + owed_s < self._deadline_s


def least_s(arm: Arm) -> float:
    """The fewest seconds that a warm arm takes for the turns and the replay of a repetition."""
    counted = round_count(arm.protocol, arm.step_s) * turn_steps(arm.protocol, arm.step_s)
    return (counted + arm.protocol.certify_steps) * arm.step_s


def baselines(protocol: Protocol, rivals: int) -> int:
    """How many processes the lead has in a heat: about the square root of the number of rivals makes the comparisons
    with all of them sharpest in the same time (Dunnett 1955)."""
    return protocol.baselines or max(1, round(math.sqrt(rivals)))


def free_bytes(device: str, arms: Sequence[Arm]) -> int:
    """Memory that one more arm could take: of the machine, or of the fullest GPU that the arms are on.

    For a GPU this is what the arms last said: each was asked after its warm-up, and no arm has started since. If no arm
    is alive to be asked, none holds any memory.
    """
    if device == "cpu":
        return cgroups.available_memory_bytes()
    free: dict[int, int] = {}
    for arm in arms:
        free |= arm.free_bytes
    return min(free.values(), default=sys.maxsize)
