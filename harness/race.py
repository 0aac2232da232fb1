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

from bench.host import Host
from bench.spec import Protocol, Trial
from harness.channel import Message
from harness.entrant import Entrant
from harness.foresee import CONTEXT_BYTES
from harness.gpus import Gpus
from harness.nursery import Nursery
from harness.record import Record, Status

MEMORY_MARGIN = 1.3
"""An arm is admitted to a heat if this many times the largest arm so far is free."""


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


def race(heat: Heat, baseline: Trial, rivals: Sequence[Trial], *, replay: bool) -> Iterator[Record]:
    """Yield one record for each arm; the baseline's once for each part that the heat is split into.

    A heat is split when its arms do not fit in memory at once, or are more than the protocol's `heat_arms`. What does
    not fit beside the baseline, or ran out of memory among others, is measured with one arm in memory at a time.
    Rivals that there is no time left for have no record.
    """
    order = random.Random(f"{heat.record.seed}")
    waiting = [trial for trial in rivals if trial.label not in heat.alone]
    alone = [trial for trial in rivals if trial.label in heat.alone]
    order.shuffle(waiting)
    first = part = heat.record.heat_part
    while waiting or (part == first and not alone):
        entrants = _admit(heat, baseline, waiting)
        if len(entrants) == 1 and waiting and _in_time(heat, entrants):
            entrants[0].end()
            alone += waiting
            break
        _rounds(heat, entrants, order)
        _certify(heat, entrants, replay=replay)
        for entrant in entrants:
            if entrant.status is Status.OOM and entrant is not entrants[0]:
                alone.append(entrant.trial)
            else:
                yield entrant.record(dataclasses.replace(heat.record, heat_part=part))
        part += 1
        if not _in_time(heat, []):
            return
    if alone:
        yield from _one_at_a_time(heat, [baseline, *alone], order, part, replay=replay)


def _in_time(heat: Heat, entrants: Sequence[Entrant]) -> bool:
    """Whether there is time to start another arm: those that have started will want as long again for their rounds and
    replays."""
    owed_s = sum(entrant.measurement.active_s + heat.protocol.rounds_s for entrant in entrants)
    return time.monotonic() + owed_s < heat.deadline_s


def _admit(heat: Heat, baseline: Trial, waiting: list[Trial]) -> list[Entrant]:
    """Start the baseline and as many of the waiting as memory and time allow; takes them off the list."""
    entrants: list[Entrant] = []
    largest_bytes = 0
    upcoming: Trial | None = baseline
    while upcoming is not None:
        heat.progress(upcoming.label, "warm-up")
        entrant = heat.enter(upcoming)
        entrant.start(heat.nursery)
        entrant.sustain(heat.gpus)
        for parked in entrants:
            parked.check_parked()
        entrants.append(entrant)
        largest_bytes = max(largest_bytes, entrant.memory_bytes() // entrant.world_size)
        is_full = len(entrants) >= max(2, heat.protocol.heat_arms)
        wanted_bytes = MEMORY_MARGIN * largest_bytes + CONTEXT_BYTES[heat.host.device]
        has_room = not is_full and free_bytes(heat, entrants) > wanted_bytes
        upcoming = waiting.pop(0) if waiting and has_room and _in_time(heat, entrants) else None
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
    heat: Heat, trials: Sequence[Trial], order: random.Random, part: int, *, replay: bool
) -> Iterator[Record]:
    """Every arm from its start to its end while no other is there, in random order: the baseline is the first trial."""
    entrants = {trial: heat.enter(trial) for trial in trials}
    for trial in order.sample(list(trials), len(trials)):
        entrant = entrants[trial]
        if trial is not trials[0] and not _in_time(heat, [entrant]):
            del entrants[trial]
            continue
        heat.progress(trial.label, "by itself")
        entrant.start(heat.nursery)
        entrant.sustain(heat.gpus)
        for index in range(entrant.round_count if entrant.alive else 0):
            entrant.step_round(index)
        entrant.attest(entrant.replay_steps if replay else 0)
        entrant.end()
        time.sleep(heat.protocol.pause_s)
    reference = entrants[trials[0]]
    for entrant in entrants.values():
        entrant.hold_against(reference)
        yield entrant.record(dataclasses.replace(heat.record, heat_part=part, alone=True))


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
    reference = entrants[0]
    for entrant in entrants:
        heat.progress(entrant.trial.label, "certificate")
        entrant.certify(reference, replay=replay)
        entrant.end()
