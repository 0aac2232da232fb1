"""One repetition of one heat: fresh processes for the baseline and its rivals, stepped in turn.

Only one arm is ever active, builds and warm-ups included; the others block on their channels. Between two arms there
is a short pause, in which the threads of the arm just parked stop spinning.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.host import Host
from bench.spec import Protocol, Trial
from harness.channel import Message
from harness.entrant import Entrant
from harness.nursery import Nursery
from harness.record import Record, Status
from harness.telemetry import Gpus

MEMORY_MARGIN = 1.3
"""An arm is admitted to a heat if this many times the largest arm so far is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """What the arms of one repetition of one workload share. `request` and `record` lack only what tells arms apart.

    `compile_caches` is a folder with one for each arm, and `toolchain` the cache that they start as a copy of.
    `found_batches` has the batch of each arm that has looked for one of its own in an earlier repetition.
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

    A heat is split when its arms do not fit in memory at once, or are more than the protocol's `heat_arms`. An arm that
    ran out of memory among others runs once more with the baseline alone before it is recorded as such.
    """
    order = random.Random(f"{heat.record.seed}")
    waiting = list(rivals)
    order.shuffle(waiting)
    crowded_out: list[Trial] = []
    part = heat.record.heat_part
    while True:
        entrants = _admit(heat, baseline, waiting)
        _rounds(heat, entrants, order)
        _certify(heat, entrants, replay=replay)
        for entrant in entrants:
            if entrant.status is Status.OOM and len(entrants) > 2 and entrant is not entrants[0]:
                crowded_out.append(entrant.trial)
            else:
                yield entrant.record(dataclasses.replace(heat.record, heat_part=part))
        part += 1
        if not waiting and crowded_out:
            waiting = [crowded_out.pop()]
        if not waiting:
            return


def _admit(heat: Heat, baseline: Trial, waiting: list[Trial]) -> list[Entrant]:
    """Start the baseline and as many of the waiting as memory allows, but at least one; takes them off the list."""
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
        largest_bytes = max(largest_bytes, entrant.memory_bytes())
        is_full = len(entrants) >= heat.protocol.heat_arms
        has_room = len(entrants) < 2 or (not is_full and free_bytes(heat) > MEMORY_MARGIN * largest_bytes)
        upcoming = waiting.pop(0) if waiting and has_room else None
        time.sleep(heat.protocol.pause_s)
    return entrants


def free_bytes(heat: Heat) -> int:
    """Memory that one more arm could take: the GPU's where the run is on one, else the machine's."""
    on_gpu = heat.gpus.free_bytes()
    return psutil.virtual_memory().available if on_gpu is None else on_gpu


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
