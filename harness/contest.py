"""Two sides against each other, workload by workload and repetition by repetition, until a referee has seen enough."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from bench.spec import Protocol, WorkloadSpec
from harness.duel import Bout, Ring, duel
from harness.gpus import Gpus
from harness.matching import Matched, match
from harness.sides import Home, Side, open_home
from harness.stored import Stored

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
"""Six to nine seconds of alternation. On a quiet machine twice as long lowers the spread of a repetition by a fifth, no
more: what remains is between processes, and more of those tell more in the same time. Short turns, because what
disturbs a busy machine lasts longer than a turn: many of them tell more than long ones (docs/decisions/0010)."""

Referee = Callable[[Sequence[Bout]], Collection[str]]
"""From all repetitions so far to the workloads that need more."""


class Contest:
    """Two sides and their nurseries. Use as a context manager. `show` receives a line on what is being done."""

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
        """`elsewhere` is the folder that the gate was started in. All that is drawn comes from `seed`. What arms print
        is appended to `log`. With a `stored` base only the head is measured, as often as there are repetitions of the
        base to set it against."""
        self._sides = sides if stored is None else sides[1:]
        self._stored, self._elsewhere, self._modules = stored, elsewhere, modules
        self._draw = random.Random(seed)
        self._seed, self._log, self._show, self._protocol = seed, log, show, protocol
        self._open = contextlib.ExitStack()
        self._pair: list[Home] = []

    def match(self, specs: Sequence[WorkloadSpec], device: str | None, run_id: str) -> Matched:
        """What can be compared on the device: on the one that torch prefers, if None. Raises ValueError as
        harness.matching does."""
        return match(self._homes(), specs, device, self._protocol, stored=self._stored, seed=self._seed, run_id=run_id)

    def run(self, matched: Matched, referee: Referee, *, budget_s: float, keep: Callable[[Bout], object]) -> list[Bout]:
        """Repetitions of the workloads that the referee still asks for, until it asks for none or another would not
        fit into the budget. `keep` receives each as it is finished."""
        deadline = time.monotonic() + budget_s
        bouts: list[Bout] = []
        latest_s: dict[str, float] = {}
        with tempfile.TemporaryDirectory(prefix="trainpace-gate-") as caches:
            rings = {name: self._ring(matched, name, Path(caches)) for name in matched.entries}
            while wanted := self._fewest(matched, referee(bouts), bouts):
                for name in wanted:
                    begun = time.monotonic()
                    if begun + latest_s.get(name, 0.0) > deadline:
                        return bouts
                    bouts.append(self._bout(rings[name], bouts))
                    latest_s[name] = time.monotonic() - begun
                    keep(bouts[-1])
                self._part()
        return bouts

    def _fewest(self, matched: Matched, wanted: Collection[str], bouts: Sequence[Bout]) -> list[str]:
        """Of the wanted workloads those with the fewest good repetitions: at a look all have the same number."""
        good = Counter(bout.workload for bout in bouts if not bout.disturbed)
        if self._stored is not None:
            # At a look all workloads have the same number.
            most = min((len(self._stored.of(name)) for name in matched.entries), default=0)
            wanted = [name for name in wanted if good[name] < most]
        least = min((good[name] for name in wanted), default=0)
        return [name for name in matched.entries if name in wanted and good[name] == least]

    def _bout(self, ring: Ring, bouts: Sequence[Bout]) -> Bout:
        earlier = [bout for bout in bouts if bout.workload == ring.spec.name]
        self._show(f"{ring.spec.name}: repetition {len(earlier) + 1}")
        replay = not any(bout.head.certificate and bout.head.certificate.first_losses for bout in earlier)
        good = sum(not bout.disturbed for bout in earlier)
        stored = self._stored.of(ring.spec.name)[good] if self._stored else None
        known = (bout.head.lead_steps for bout in earlier if not bout.disturbed)
        ring = dataclasses.replace(ring, lead_steps=next(known, None))
        return duel(ring, self._homes(), len(earlier), self._draw, replay=replay, stored=stored)

    def _homes(self) -> list[Home]:
        """A nursery for each side that is measured: those at hand, or new ones, all started at once, in an order that
        is drawn."""
        if not self._pair:
            self._show("starting the nurseries")
            homes = {
                side: self._open.enter_context(open_home(side, self._elsewhere, self._draw, self._modules))
                for side in self._draw.sample(self._sides, len(self._sides))
            }
            self._pair = [homes[side] for side in self._sides]
            for home in self._pair:
                home.wait_ready()
        return self._pair

    def _part(self) -> None:
        """End the nurseries: the repetitions that follow are of another pair."""
        self._pair = []
        self._open.close()

    def __enter__(self) -> Contest:
        return self

    def __exit__(self, *_: object) -> None:
        self._part()

    def _ring(self, matched: Matched, workload: str, caches: Path) -> Ring:
        entry, device = matched.entries[workload], matched.host.device
        return Ring(
            spec=entry.spec,
            host=matched.host,
            protocol=matched.plans["head"].protocol,
            gpus=Gpus(device, matched.host.gpu_uuids),
            request=entry.request | {"device": device, "log": str(self._log)},
            records={side.name: matched.template(side, workload) for side in self._sides},
            compile_caches=caches,
        )
