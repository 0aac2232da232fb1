"""One repetition of one heat: fresh processes for the baseline and its rivals, stepped in turn.

Only one arm is ever active, builds and warm-ups included; the others block on their channels. Between two arms there
is a short pause, in which the threads of the arm just parked stop spinning.
"""

from __future__ import annotations

import dataclasses
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """What the arms of one repetition of one workload share. `request` and `record` lack only what tells arms apart.

    `compile_caches` is a folder with one for each arm, and `toolchain` the cache that they start as a copy of.
    `found_batches` has the batch of each arm that has looked for one of its own in an earlier repetition. `alone` are
    the labels of the arms that cannot be in memory beside others. After `deadline_s`, on time.monotonic's clock, no
    rival is started any more.
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
    """Yield one record for each arm; the baseline's once for each part that the heat is split into.

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
        entrants = _admit(heat, baseline, candidates, left)
        if len(entrants) == 1 and candidates and left.allows(1, entrants):
            # There was time, so what was lacking is room.
            entrants[0].end()
            alone += candidates
            candidates.clear()
            continue
        _rounds(heat, entrants, order)
        _certify(heat, entrants, replay=replay)
        for entrant in entrants:
            if entrant.status is Status.OOM and entrant is not entrants[0]:
                (crowded_out if len(entrants) > 2 else alone).append(entrant.trial)
            else:
                yield entrant.record(dataclasses.replace(heat.record, heat_part=part))
        part += 1
        if len(entrants) == 1 and candidates:
            return
    if alone and (part == first or left.allows(2)):
        yield from _one_at_a_time(heat, [baseline, *alone], order, part, left, replay=replay)


def _admit(heat: Heat, baseline: Trial, waiting: list[Trial], left: _Time) -> list[Entrant]:
    """Start the baseline and as many of the waiting as memory and time allow; takes them off the list."""
    entrants: list[Entrant] = []
    largest_bytes = 0
    upcoming: Trial | None = baseline
    while upcoming is not None:
        heat.progress(upcoming.label, "warm-up")
        entrant = heat.enter(upcoming)
        entrant.start(heat.nursery)
        entrant.sustain(heat.gpus)
        left.spent(entrant)
        for parked in entrants:
            parked.check_parked()
        entrants.append(entrant)
        largest_bytes = max(largest_bytes, entrant.memory_bytes() // entrant.world_size)
        is_full = len(entrants) >= max(2, heat.protocol.heat_arms)
        has_room = not is_full and free_bytes(heat, entrants) > rival_bytes(heat.host.device, largest_bytes)
        upcoming = waiting.pop(0) if waiting and has_room and left.allows(1, entrants) else None
        time.sleep(heat.protocol.pause_s)
    return entrants


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
    done: list[Entrant] = []
    for trial in order.sample(list(trials), len(trials)):
        if trial is not trials[0] and not left.allows(1 if reference else 2):
            continue
        heat.progress(trial.label, "by itself")
        entrant = heat.enter(trial)
        entrant.start(heat.nursery)
        entrant.sustain(heat.gpus)
        left.spent(entrant)
        for index in range(entrant.round_count if entrant.alive else 0):
            entrant.step_round(index)
        entrant.attest(entrant.replay_steps if replay else 0)
        entrant.end()
        done.append(entrant)
        if trial is trials[0]:
            reference = entrant
        if reference is not None:
            for finished in done:
                finished.hold_against(reference)
                yield finished.record(dataclasses.replace(heat.record, heat_part=part, alone=True))
            done.clear()
        time.sleep(heat.protocol.pause_s)


def _rounds(heat: Heat, entrants: list[Entrant], order: random.Random) -> None:
    """Every arm steps in turn, in random order. A slow arm sits out some rounds, evenly spread over all of them."""
    alive = [entrant for entrant in entrants if entrant.alive]
    if not alive:
        return
    # The baseline, which every rival is set against, runs in all rounds.
    total = alive[0].round_count
    turns = {id(entrant): spread(min(total, entrant.round_count), total) for entrant in alive}
    for index in range(total):
        taking_part = [entrant for entrant in alive if entrant.alive and index in turns[id(entrant)]]
        order.shuffle(taking_part)
        heat.progress("", f"round {index + 1}/{total}")
        for entrant in taking_part:
            entrant.check_parked()
            time.sleep(heat.protocol.pause_s)
            entrant.step_round(index)


def spread(count: int, total: int) -> set[int]:
    """`count` of the numbers below `total`, evenly spaced."""
    return {(2 * turn + 1) * total // (2 * count) for turn in range(count)}


def _certify(heat: Heat, entrants: list[Entrant], *, replay: bool) -> None:
    """The baseline is asked last, when the memory of all others is free again."""
    reference = entrants[0]
    steps = reference.replay_steps if replay else 0
    for entrant in reversed(entrants):
        heat.progress(entrant.trial.label, "certificate")
        entrant.attest(steps)
        entrant.end()
    for entrant in entrants:
        entrant.hold_against(reference)
