"""One repetition of one heat: fresh processes for the baseline and its rivals, stepped in turn.

Only one arm is ever active, builds and warm-ups included; the others block on their channels. All rivals lean on the
baseline, which is why it has several processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from bench.host import Host, rival_bytes
from bench.spec import Protocol, Trial
from harness import cgroups
from harness.channel import Message
from harness.entrant import Entrant
from harness.gpus import Gpus
from harness.nursery import Nursery
from harness.record import Record, Status
from harness.turns import Rounds, run_rounds

CERTIFIED_AT_ONCE = 2
"""Replays beside each other on a CPU, each with its share of the threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """What the arms of one repetition of one workload share. `request` and `record` lack only what tells arms apart.

    `compile_caches` is a folder with one for each arm, and `toolchain` the cache that they start as a copy of;
    `shared_cache`, where it is given, is one for all of them.
    `found_batches` has the batch of each arm that has looked for one of its own in an earlier repetition. `alone` are
    the labels of the arms that cannot be in memory beside others. `lead_steps` is how many steps of a turn are known
    not to count, None if that is not known yet. `start_s` is how long arms may take to be warm, by label. After
    `deadline_s`, on time.monotonic's clock, no rival is started any more.
    """

    nursery: Nursery
    host: Host
    protocol: Protocol
    gpus: Gpus
    request: Message
    record: Record
    compile_caches: Path
    toolchain: Path | None
    shared_cache: Path | None
    found_batches: Mapping[str, int]
    alone: Collection[str]
    lead_steps: int | None
    start_s: Mapping[str, float]
    deadline_s: float
    progress: Callable[[str, str], object]

    def enter(self, trial: Trial) -> Entrant:
        """A new entrant with a compile cache of its own, so that no arm profits from what another compiled, unless
        nobody asks how long that takes."""
        # As a name they could be too long for a folder.
        identity = f"{self.record.workload} {trial.label}"
        own = self.compile_caches / hashlib.sha256(identity.encode()).hexdigest()[:16]
        cache = self.shared_cache or own
        is_cold = not cache.exists()
        if is_cold and self.toolchain is not None and self.toolchain.exists():
            shutil.copytree(self.toolchain, cache)
        cache.mkdir(parents=True, exist_ok=True)
        request = self.request | {
            "techniques": list(trial.techniques),
            "environment": {"TORCHINDUCTOR_CACHE_DIR": str(cache)},
            "found_batch": self.found_batches.get(trial.label),
        }
        return Entrant(trial, request=request, protocol=self.protocol, host=self.host, is_cold=is_cold)


class _Time:
    """What is left until no rival is started any more.

    To be warm, an arm takes as long as in an earlier heat, or else as long as the mean of this one; for its replay it
    takes as long again, but some replay at once.
    """

    def __init__(self, heat: Heat, *, replay: bool) -> None:
        self._deadline_s, self._rounds_s = heat.deadline_s, heat.protocol.rounds_s
        self._start_s, self._starts_s = heat.start_s, list[float]()
        self._replays = (1 / _at_once(heat)) if replay else 0.0

    def spent(self, entrant: Entrant) -> None:
        """Learn from an arm that has started."""
        if entrant.alive:
            self._starts_s.append(entrant.measurement.active_s)

    def allows(self, more: Sequence[Trial], begun: Sequence[Entrant] = ()) -> bool:
        """Whether these can be started too, and all be finished that have begun."""
        mean_s = statistics.fmean(self._starts_s) if self._starts_s else 0.0
        starts_s = [self._start_s.get(trial.label, mean_s) for trial in more]
        begun_s = [entrant.measurement.active_s for entrant in begun if entrant.alive]
        owed_s = sum(self._rounds_s + self._replays * start_s for start_s in (*starts_s, *begun_s))
        return time.monotonic() + sum(starts_s) + owed_s < self._deadline_s


def race(heat: Heat, baseline: Trial, rivals: Sequence[Trial], *, replay: bool) -> Iterator[Record]:
    """Yield one record for each arm; the baseline's for each of its processes in each part that the heat is split into.

    A heat is split when its arms do not fit in memory at once, or are more than the protocol's `heat_arms`. An arm that
    ran out of memory among others runs once more with the baseline alone; what does not fit beside that is measured
    with one arm in memory at a time. Rivals that there is no time left for have no record.
    """
    order = random.Random(f"{heat.record.seed}")
    left = _Time(heat, replay=replay)
    waiting = [trial for trial in rivals if trial.label not in heat.alone]
    alone = [trial for trial in rivals if trial.label in heat.alone]
    crowded_out: list[Trial] = []
    order.shuffle(waiting)
    first = part = heat.record.heat_part
    while waiting or crowded_out or (part == first and not alone):
        candidates = waiting if waiting or not crowded_out else [crowded_out.pop()]
        if part > first and not left.allows([baseline, candidates[0]]):
            return
        entrants = _admit(heat, baseline, candidates, order, left)
        if len(entrants) == 1 and candidates and left.allows(candidates[:1], entrants):
            # There was time, so what was lacking is room.
            entrants[0].end()
            alone += candidates
            candidates.clear()
            continue
        found = _rounds(heat, entrants, order)
        _certify(heat, entrants, replay=replay)
        for entrant in entrants:
            if entrant.status is Status.OOM and entrant.trial.techniques:
                (crowded_out if len(entrants) > 2 else alone).append(entrant.trial)
            elif entrant.status is not Status.OOM or not entrant.trial.copy:
                yield entrant.record(dataclasses.replace(_counted(heat, found), heat_part=part))
        part += 1
        if len(entrants) == 1 and candidates:
            return
    if alone and (part == first or left.allows([baseline, alone[0]])):
        yield from _one_at_a_time(heat, [baseline, *alone], order, part, left, replay=replay)


def _admit(heat: Heat, baseline: Trial, waiting: list[Trial], order: random.Random, left: _Time) -> list[Entrant]:
    """Start the baseline and as many of the waiting as memory and time allow; takes them off the list.

    They start in random order, because it matters: the first was seen to be three per cent slower than the others for
    as long as it lived. Only where that leaves no room for the baseline it comes first. Returns the baseline first and
    its further processes last.
    """
    most = max(2, heat.protocol.heat_arms)
    rivals = waiting[: most - baselines(heat.protocol, min(len(waiting), most - 1))]
    further = [baseline] * (baselines(heat.protocol, len(rivals)) - 1)
    line = [baseline, *rivals, *further]
    entrants = _start(heat, order.sample(line, len(line)), left)
    reference = next((entrant for entrant in entrants if entrant.trial == baseline), None)
    if reference is None or (reference.status is Status.OOM and entrants.index(reference)):
        for entrant in entrants:
            entrant.end()
        entrants = _start(heat, line, left)
    started = [entrant.trial for entrant in entrants]
    waiting[:] = [trial for trial in waiting if trial not in started]
    return sorted(entrants, key=lambda entrant: (entrant.trial.copy > 0, entrant.trial.techniques != ()))


def _start(heat: Heat, line: Sequence[Trial], left: _Time) -> list[Entrant]:
    """Start the trials in this order until memory or time is used up, or would be but for the baseline, which then
    comes next and last. A further process of the baseline takes nothing that a rival in the line would need."""
    entrants: list[Entrant] = []
    largest_bytes, pending = 0, list(line)
    while pending:
        trial = pending.pop(0)
        copies = sum(not entrant.trial.techniques for entrant in entrants)
        if not trial.techniques:
            trial = dataclasses.replace(trial, copy=copies)
            more = [trial, *(other for other in pending if other.techniques)] if copies else [trial]
        else:
            more = [trial] if copies else [trial, next(other for other in pending if not other.techniques)]
        # What an arm needs is not known before one has started.
        need_bytes = rival_bytes(heat.host.device, largest_bytes)
        room = free_bytes(heat, entrants) // need_bytes if need_bytes and entrants else len(more)
        if room < len(more) or not left.allows(more, entrants):
            if trial.copy:
                continue
            if copies or not room:
                return entrants
            trial = next(other for other in (trial, *pending) if not other.techniques)
            pending.clear()
        heat.progress(trial.label, "warm-up")
        entrants.append(_started(heat, trial, entrants, left))
        largest_bytes = max(largest_bytes, entrants[-1].memory_bytes() // entrants[-1].world_size)
    return entrants


def _started(heat: Heat, trial: Trial, parked: Sequence[Entrant], left: _Time) -> Entrant:
    """A new arm, warm; the others are parked meanwhile."""
    entrant = heat.enter(trial)
    entrant.start(heat.nursery)
    entrant.sustain(heat.gpus)
    left.spent(entrant)
    for other in parked:
        other.check_parked()
    time.sleep(heat.protocol.pause_s)
    return entrant


def baselines(protocol: Protocol, rivals: int) -> int:
    """How many processes the baseline has in a heat: about the square root of the number of rivals is what makes the
    comparisons with all of them sharpest in the same time (Dunnett 1955)."""
    return protocol.baselines or max(1, round(math.sqrt(rivals)))


def free_bytes(heat: Heat, entrants: Sequence[Entrant]) -> int:
    """Memory that one more arm could take: of the machine, or of the fullest GPU that the arms are on.

    Of a GPU, what the arms said last: each was asked after it had warmed up, and none has come since. Where none lives
    to be asked, none holds any.
    """
    if heat.host.device == "cpu":
        return cgroups.available_memory_bytes()
    free: dict[int, int] = {}
    for entrant in entrants:
        free |= entrant.free_bytes
    return min(free.values(), default=sys.maxsize)


def _one_at_a_time(
    heat: Heat, trials: Sequence[Trial], order: random.Random, part: int, left: _Time, *, replay: bool
) -> Iterator[Record]:
    """Every arm from its start to its end while no other is there, in random order: the baseline is the first trial."""
    reference: Entrant | None = None
    done: list[tuple[Entrant, Rounds]] = []
    for trial in order.sample(list(trials), len(trials)):
        if trial is not trials[0] and not left.allows([trial] if reference else [trial, trials[0]]):
            continue
        heat.progress(trial.label, "by itself")
        entrant = _started(heat, trial, (), left)
        found = _rounds(heat, [entrant], order)
        entrant.attest(entrant.replay_steps if replay else 0)
        entrant.end()
        done.append((entrant, found))
        if trial is trials[0]:
            reference = entrant
        if reference is not None:
            for finished, rounds in done:
                finished.hold_against(reference)
                yield finished.record(dataclasses.replace(_counted(heat, rounds), heat_part=part, alone=True))
            done.clear()
        time.sleep(heat.protocol.pause_s)


def _rounds(heat: Heat, entrants: list[Entrant], order: random.Random) -> Rounds:
    return run_rounds(
        entrants,
        protocol=heat.protocol,
        gpus=heat.gpus,
        draw=order,
        lead_steps=heat.lead_steps,
        show=lambda text: heat.progress("", text),
    )


def _counted(heat: Heat, found: Rounds) -> Record:
    """The heat's template with what of the rounds is counted."""
    return dataclasses.replace(
        heat.record,
        dropped_rounds=found.dropped,
        disturbances=found.disturbances,
        disturbed=found.is_disturbed(heat.protocol.rounds_min),
    )


def _at_once(heat: Heat) -> int:
    """How many arms replay beside each other. On a GPU each would need memory that the others have taken."""
    return CERTIFIED_AT_ONCE if heat.host.device == "cpu" else 1


def _certify(heat: Heat, entrants: list[Entrant], *, replay: bool) -> None:
    """The baseline is asked last, when the memory of all others is free again. Its further processes do not replay.

    Nothing is timed here but what ranks wait for each other: arms of one rank replay beside each other, first those
    that took longest to start, because compilation leaves a core idle.
    """
    reference = entrants[0]
    steps = reference.replay_steps if replay else 0

    def certify(entrant: Entrant, at_once: int = 1) -> Entrant:
        entrant.attest(0 if entrant.trial.copy else steps, at_once)
        entrant.end()
        return entrant

    def begins_early(entrant: Entrant) -> tuple[bool, float]:
        return not entrant.trial.copy, -(entrant.measurement.first_step_s or 0.0)

    rivals = sorted(entrants[1:], key=begins_early)
    at_once = _at_once(heat)
    beside = [entrant for entrant in rivals if entrant.world_size == 1]
    pool = ThreadPoolExecutor(at_once)
    try:
        for certified in as_completed([pool.submit(certify, entrant, at_once) for entrant in beside]):
            heat.progress(certified.result().trial.label, "certificate")
    finally:
        # Who interrupts does not want to wait for what has not begun.
        pool.shutdown(wait=False, cancel_futures=True)
    for entrant in (*(entrant for entrant in rivals if entrant.world_size > 1), reference):
        heat.progress(entrant.trial.label, "certificate")
        certify(entrant)
    for entrant in entrants:
        # What is the baseline itself has not replayed, and has nothing to be held against.
        if not entrant.trial.copy:
            entrant.hold_against(reference)
