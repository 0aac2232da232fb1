"""One repetition of one heat: fresh processes for the baseline and its rivals, stepped in turn.

Only one arm is ever active, builds and warm-ups included; the others block on their channels. All rivals lean on the
baseline, which is why it has several processes.
"""

from __future__ import annotations

import dataclasses
import math
import random
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.host import Host, rival_bytes
from bench.spec import Protocol, Trial
from harness.channel import Message
from harness.entrant import Entrant
from harness.gpus import Gpus
from harness.nursery import Nursery
from harness.record import Record, Status
from harness.turns import Rounds, round_count, take_turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """What the arms of one repetition of one workload share. `request` and `record` lack only what tells arms apart.

    `compile_caches` is a folder with one for each arm, and `toolchain` the cache that they start as a copy of.
    `found_batches` has the batch of each arm that has looked for one of its own in an earlier repetition. `alone` are
    the labels of the arms that cannot be in memory beside others. `lead_steps` is how many steps of a turn are known
    not to count, None if that is not known yet. After `deadline_s`, on time.monotonic's clock, no rival is started any
    more.
    """

    nursery: Nursery
    host: Host
    protocol: Protocol
    gpus: Gpus
    request: Message
    record: Record
    compile_caches: Path
    toolchain: Path
    found_batches: Mapping[str, int]
    alone: Collection[str]
    lead_steps: int | None
    deadline_s: float
    progress: Callable[[str, str], object]

    def enter(self, trial: Trial) -> Entrant:
        """A new entrant with a compile cache of its own, so that no arm profits from what another compiled."""
        cache = self.compile_caches / f"{self.record.workload.replace('/', '_').replace(' ', '-')}-{trial.label}"
        is_cold = not cache.exists()
        if is_cold and self.toolchain.exists():
            shutil.copytree(self.toolchain, cache)
        cache.mkdir(parents=True, exist_ok=True)
        request = self.request | {
            "techniques": list(trial.techniques),
            "environment": {"TORCHINDUCTOR_CACHE_DIR": str(cache)},
            "found_batch": self.found_batches.get(trial.label),
        }
        return Entrant(trial, request=request, protocol=self.protocol, host=self.host, is_cold=is_cold)


class _Time:
    """What is left until no rival is started any more, by what the arms have taken so far.

    An arm takes as long again for its rounds and its certificate as it took to start.
    """

    def __init__(self, heat: Heat) -> None:
        self._deadline_s, self._rounds_s = heat.deadline_s, heat.protocol.rounds_s
        self._longest_s = 0.0

    def spent(self, entrant: Entrant) -> None:
        """Learn from an arm that has started."""
        if entrant.alive:
            self._longest_s = max(self._longest_s, entrant.measurement.active_s)

    def allows(self, more: int, begun: Sequence[Entrant] = ()) -> bool:
        """Whether so many more arms can be started, and all be finished that have begun."""
        owed_s = sum(entrant.measurement.active_s + self._rounds_s for entrant in begun if entrant.alive)
        return time.monotonic() + owed_s + more * (2 * self._longest_s + self._rounds_s) < self._deadline_s


def race(heat: Heat, baseline: Trial, rivals: Sequence[Trial], *, replay: bool) -> Iterator[Record]:
    """Yield one record for each arm; the baseline's for each of its processes in each part that the heat is split into.

    A heat is split when its arms do not fit in memory at once, or are more than the protocol's `heat_arms`. An arm that
    ran out of memory among others runs once more with the baseline alone; what does not fit beside that is measured
    with one arm in memory at a time. Rivals that there is no time left for have no record.
    """
    order = random.Random(f"{heat.record.seed}")
    left = _Time(heat)
    waiting = [trial for trial in rivals if trial.label not in heat.alone]
    alone = [trial for trial in rivals if trial.label in heat.alone]
    crowded_out: list[Trial] = []
    order.shuffle(waiting)
    first = part = heat.record.heat_part
    while waiting or crowded_out or (part == first and not alone):
        if part > first and not left.allows(2):
            return
        candidates = waiting if waiting or not crowded_out else [crowded_out.pop()]
        entrants = _admit(heat, baseline, candidates, order, left)
        if len(entrants) == 1 and candidates and left.allows(1, entrants):
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
    if alone and (part == first or left.allows(2)):
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
        rivals = sum(bool(other.techniques) for other in pending)
        if not trial.techniques:
            more = rivals + 1 if copies else 1
            trial = dataclasses.replace(trial, copy=copies)
        else:
            more = 1 if copies else 2
        # What an arm needs is not known before one has started.
        need_bytes = rival_bytes(heat.host.device, largest_bytes)
        room = free_bytes(heat, entrants) // need_bytes if need_bytes and entrants else more
        if room < more or not left.allows(more, entrants):
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
        return psutil.virtual_memory().available
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
        if trial is not trials[0] and not left.allows(1 if reference else 2):
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
    """The turns of all arms that have started. A slow arm sits out some rounds."""
    alive = [entrant for entrant in entrants if entrant.alive]
    if not alive:
        return Rounds()
    # The baseline, which every rival is set against, takes part in all rounds.
    total = round_count(heat.protocol, alive[0].step_s)
    counts = [min(total, round_count(heat.protocol, entrant.step_s)) for entrant in alive]
    return take_turns(
        alive,
        counts,
        protocol=heat.protocol,
        gpus=heat.gpus.first(max(entrant.world_size for entrant in alive)),
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


def _certify(heat: Heat, entrants: list[Entrant], *, replay: bool) -> None:
    """The baseline is asked last, when the memory of all others is free again. Its further processes do not replay."""
    reference = entrants[0]
    steps = reference.replay_steps if replay else 0
    for entrant in reversed(entrants):
        heat.progress(entrant.trial.label, "certificate")
        entrant.attest(0 if entrant.trial.copy else steps)
        entrant.end()
    for entrant in entrants:
        # What is the baseline itself has not replayed, and has nothing to be held against.
        if not entrant.trial.copy:
            entrant.hold_against(reference)
