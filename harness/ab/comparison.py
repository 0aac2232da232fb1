"""Two sides against each other, workload by workload and repetition by repetition, until a referee has seen enough."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from bench import temporary
from bench.spec import Protocol, WorkloadSpec
from harness.ab.matching import SAME, Matched, match
from harness.ab.pair import Pair, measure_pair
from harness.ab.sides import Home, Side, open_home
from harness.ab.stored import Stored
from harness.heats.heat import Heat
from harness.telemetry.gpus import Gpus

PROTOCOL = Protocol(
    warmup_min_steps=12,
    rounds=2000,
    rounds_min=12,
    rounds_s=2.2,
    turn_s=0.05,
    turn_steps=1,
    watch_s=3600,
    spare=0.0,
    certify_steps=10,
    certify_s=6.0,
    telemetry=False,
    timeout_s=300,
)
"""Six to nine seconds of alternation. On a quiet machine twice as long reduces the spread of a repetition by only a
fifth: the rest is variation between processes, and more processes tell more in the same time. Turns are short because
disturbances on a busy machine last longer than a turn: many short turns tell more than long ones
(docs/decisions/0010)."""

Referee = Callable[[Sequence[Pair]], Collection[str]]
"""From all repetitions so far to the workloads that need more of them."""


class Comparison:
    """Two sides and their fork servers. Use as a context manager. `show` receives lines on what is being done."""

    def __init__(
        self,
        sides: tuple[Side, Side],
        *,
        stored: Stored | None = None,
        elsewhere: Path,
        seed: int,
        log: Path,
        show: Callable[[str], object] = lambda text: None,
        modules: Sequence[str] = (),
        protocol: Protocol = PROTOCOL,
    ) -> None:
        """`elsewhere` is the folder that the gate was started in. All random choices derive from `seed`. What arms
        print is appended to `log`. With a `stored` base only the head is measured, as often as the base has repetitions
        to compare with."""
        self._sides = sides if stored is None else sides[1:]
        self._stored, self._elsewhere, self._modules = stored, elsewhere, modules
        self._draw = random.Random(seed)
        self._seed, self._log, self._show, self._protocol = seed, log, show, protocol
        self._open = contextlib.ExitStack()
        self._opened: list[Home] = []

    def match(
        self, specs: Sequence[WorkloadSpec], device: str | None, run_id: str, same: Sequence[str] = SAME
    ) -> Matched:
        """What can be compared on the device (None: the one that torch prefers). The `same` properties of a workload
        must agree on both sides. Raises ValueError as harness.ab.matching does."""
        return match(
            self.homes(),
            specs,
            device,
            self._protocol,
            stored=self._stored,
            seed=self._seed,
            run_id=run_id,
            same=same,
        )

    def run(self, matched: Matched, referee: Referee, *, budget_s: float, keep: Callable[[Pair], object]) -> list[Pair]:
        """Repeat the workloads that the referee still asks for, until it asks for none or another repetition would
        exceed the budget. `keep` receives each repetition as it is finished."""
        deadline = time.monotonic() + budget_s
        pairs: list[Pair] = []
        latest_s: dict[str, float] = {}
        gpus = Gpus(matched.host.device, matched.host.gpu_uuids)
        with temporary.folder("gate") as caches:
            while wanted := self._fewest(matched, referee(pairs), pairs):
                for name in wanted:
                    begun = time.monotonic()
                    if begun + latest_s.get(name, 0.0) > deadline:
                        return pairs
                    earlier = [pair for pair in pairs if pair.workload == name]
                    pairs.append(self._pair(matched, name, earlier, gpus, Path(caches)))
                    latest_s[name] = time.monotonic() - begun
                    keep(pairs[-1])
                self._close()
        return pairs

    def _fewest(self, matched: Matched, wanted: Collection[str], pairs: Sequence[Pair]) -> list[str]:
        """The wanted workloads with the fewest good repetitions: at each look all have the same number."""
        good = Counter(pair.workload for pair in pairs if not pair.disturbed)
        if self._stored is not None:
            # At a look all workloads have the same number.
            most = min((len(self._stored.of(name)) for name in matched.entries), default=0)
            wanted = [name for name in wanted if good[name] < most]
        least = min((good[name] for name in wanted), default=0)
        return [name for name in matched.entries if name in wanted and good[name] == least]

    def _pair(self, matched: Matched, name: str, earlier: Sequence[Pair], gpus: Gpus, caches: Path) -> Pair:
        """Another repetition of the workload with that name, after the `earlier` ones."""
        self._show(f"{name}: repetition {len(earlier) + 1}")
        entry, seed = matched.entries[name], self._draw.randrange(2**31)
        good = [pair for pair in earlier if not pair.disturbed]
        heat = Heat(
            host=matched.host,
            protocol=matched.plans["head"].protocol,
            gpus=gpus,
            request=entry.request | {"device": matched.host.device, "seed": seed, "log": str(self._log)},
            lead_steps=good[0].head.lead_steps if good else None,
            draw=self._draw,
        )
        templates = {side.name: matched.template(side, name) for side in self._sides}
        return measure_pair(
            heat,
            entry.spec,
            self.homes(),
            {
                side: dataclasses.replace(record, repetition=len(earlier), seed=seed)
                for side, record in templates.items()
            },
            caches=caches,
            replay=_is_to_replay(earlier),
            stored=self._stored.of(name)[len(good)] if self._stored else None,
        )

    def homes(self) -> list[Home]:
        """A fork server for each side that is measured: the open ones, or new ones, all started at once in random
        order."""
        if not self._opened:
            self._show("starting the fork servers")
            homes = {
                side: self._open.enter_context(open_home(side, self._elsewhere, self._draw, self._modules))
                for side in self._draw.sample(self._sides, len(self._sides))
            }
            self._opened = [homes[side] for side in self._sides]
            for home in self._opened:
                home.wait_ready()
        return self._opened

    def _close(self) -> None:
        """End the fork servers: later repetitions get new ones."""
        self._opened = []
        self._open.close()

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def _is_to_replay(earlier: Sequence[Pair]) -> bool:
    """Replay once, and once more if the head was seen to allocate more, so that a single observation does not convict
    it."""
    replayed = [pair for pair in earlier if pair.head.certificate and pair.head.certificate.first_losses]
    if not replayed:
        return True
    allocated = replayed[0].allocated_bytes
    return len(replayed) == 1 and allocated is not None and allocated[1] > allocated[0]
