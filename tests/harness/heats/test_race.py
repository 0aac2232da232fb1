"""Which arms of a heat are started, together or by themselves, and when there is no time for more.

The arms here have set times and memory needs: the tests check the order of events, not the measurement.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.host import Host
from bench.spec import Protocol, Trial, WorkloadSpec
from harness.heats import heat as heats
from harness.heats import race as racing
from harness.heats import rounds
from harness.heats.arm import Arm
from harness.heats.heat import Heat
from harness.heats.race import Lineup, Race
from harness.record import Measurement, Record, Status
from harness.telemetry import conditions
from harness.telemetry.gpus import Gpus
from tests.samples import record

SPEC = WorkloadSpec(model="gpt2/nano")
MEMORY_BYTES = 100 << 30
"""The memory of the device."""


class World:
    """A clock that only arms advance, and a device that they fill."""

    def __init__(self) -> None:
        self.now_s, self.alive = 0.0, list[Told]()
        self.most_alive, self.started = 0, list[str]()

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    @property
    def free_bytes(self) -> int:
        return MEMORY_BYTES - sum(arm.needs_bytes for arm in self.alive)


class Told(Arm):
    """An arm that takes `starts_s` to start, half of that for its certificate, and `needs_bytes` while it lives."""

    def __init__(self, trial: Trial, world: World, *, starts_s: float, needs_bytes: int) -> None:
        request = {"device": "cuda"}
        super().__init__(trial, request=request, protocol=Protocol(), host=Host(device="cuda", gpus=1), is_cold=False)
        self.world, self.starts_s, self.needs_bytes = world, starts_s, needs_bytes

    @property
    def alive(self) -> bool:
        return self in self.world.alive

    @property
    def step_s(self) -> float:
        return 0.1

    def start(self, fork_server: Any) -> None:
        self.world.started.append(self.trial.label)
        self.world.now_s += self.starts_s
        self.measurement.active_s += self.starts_s
        if self.needs_bytes > self.world.free_bytes:
            self.status, self._reason = Status.OOM, "out of memory"
            return
        self.world.alive.append(self)
        self.world.most_alive = max(self.world.most_alive, len(self.world.alive))

    def sustain(self, gpus: Any) -> None:
        self.free_bytes = {0: self.world.free_bytes}

    def memory_bytes(self) -> int:
        return self.needs_bytes if self.alive else 0

    def turn(self, index: int) -> None:
        self.world.now_s += 0.1

    def check_parked(self) -> None:
        """Nothing to check: it does nothing while it is parked."""

    def attest(self, replay_steps: int, at_once: int = 1) -> None:
        self.world.now_s += self.starts_s / 2 if self.alive else 0.0

    def end(self) -> None:
        if self.alive:
            self.world.alive.remove(self)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(racing, "time", made)
    monkeypatch.setattr(rounds, "time", made)
    monkeypatch.setattr(heats, "time", made)
    monkeypatch.setattr(conditions, "disturbances", lambda *_, **__: [])
    return made


class ToldRace(Race):
    """A race whose arms have set values: by label, the seconds to start and the bytes."""

    def __init__(self, heat: Heat, lineup: Lineup, world: World, told: dict[str, tuple[float, int]]) -> None:
        super().__init__(heat, lineup)
        self.world, self.told = world, told

    def arm(self, trial: Trial) -> Arm:
        starts_s, needs_bytes = self.told[trial.label]
        return Told(trial, self.world, starts_s=starts_s, needs_bytes=needs_bytes)


Run = Callable[..., list[Record]]


@pytest.fixture
def run(world: World) -> Run:
    def made(
        told: dict[str, tuple[float, int]],
        *,
        deadline_s: float = 1e9,
        alone: tuple[str, ...] = (),
        seed: int = 0,
        copies: int = 1,
        lead: str = "fp32",
    ) -> list[Record]:
        heat = Heat(
            host=Host(device="cuda", gpus=1),
            protocol=Protocol(rounds=3, rounds_s=1.0, baselines=copies),
            gpus=Gpus("cpu", ()),
            request={},
            lead_steps=1,
            draw=random.Random(seed),
        )
        lineup = Lineup(
            fork_server=None,  # type: ignore[arg-type]  # these arms have no process
            record=dataclasses.replace(record("fp32", 0, []), measurement=Measurement(), seed=seed),
            compile_caches=Path(),
            alone=alone,
            deadline_s=deadline_s,
            lead=lead,
        )
        rivals = [Trial(workload=SPEC, techniques=(name,)) for name in told if name != "fp32"]
        return list(ToldRace(heat, lineup, world, told).run(Trial(workload=SPEC), rivals))

    return made


def seen(records: list[Record]) -> list[tuple[str, int, bool, Status]]:
    return sorted((item.techniques, item.heat_part, item.alone, item.status) for item in records)


GIB = 1 << 30
OK, OOM = Status.OK, Status.OOM


def test_what_fits_runs_together(run: Run, world: World) -> None:
    found = run({"fp32": (5.0, 10 * GIB), "adam": (5.0, 10 * GIB), "sgd": (5.0, 8 * GIB)})
    assert seen(found) == [("adam", 0, False, OK), ("fp32", 0, False, OK), ("sgd", 0, False, OK)]
    assert world.most_alive == 3


def test_a_baseline_without_rivals_is_measured_once(run: Run) -> None:
    assert seen(run({"fp32": (5.0, 10 * GIB)})) == [("fp32", 0, False, OK)]


def test_the_baseline_starts_at_any_place(run: Run, world: World) -> None:
    told = {"fp32": (5.0, GIB), "adam": (5.0, GIB), "sgd": (5.0, GIB)}
    places = [0, 0, 0]
    for seed in range(60):
        world.started.clear()
        run(told, seed=seed)
        places[world.started.index("fp32")] += 1
    assert min(places) > 10


SEEDS = pytest.mark.parametrize("seed", range(6))


@SEEDS
def test_further_processes_of_the_baseline_take_no_rivals_room(run: Run, seed: int) -> None:
    told = {"fp32": (5.0, 20 * GIB), "adam": (5.0, 20 * GIB), "sgd": (5.0, 20 * GIB)}
    found = run(told, seed=seed, copies=3)
    assert [(item.techniques, item.copy) for item in found if item.heat_part] == []
    assert sorted(item.techniques for item in found if not item.copy) == ["adam", "fp32", "sgd"]


@SEEDS
def test_what_others_are_held_against_has_the_further_processes(run: Run, world: World, seed: int) -> None:
    told = {"fp32": (5.0, GIB), "adam": (5.0, GIB), "sgd": (5.0, GIB)}
    found = run(told, seed=seed, copies=3, lead="adam")
    assert sorted((item.techniques, item.copy) for item in found) == [
        ("adam", 0),
        ("adam", 1),
        ("adam", 2),
        ("fp32", 0),
        ("sgd", 0),
    ]
    assert world.started[1] == "adam"


@SEEDS
def test_further_processes_of_the_lead_take_no_rivals_room(run: Run, seed: int) -> None:
    told = {"fp32": (5.0, 20 * GIB), "adam": (5.0, 20 * GIB), "sgd": (5.0, 20 * GIB)}
    found = run(told, seed=seed, copies=3, lead="adam")
    assert {item.heat_part for item in found} == {0}
    assert sorted(item.techniques for item in found if not item.copy) == ["adam", "fp32", "sgd"]


@SEEDS
def test_what_does_not_fit_beside_the_baseline_runs_by_itself(run: Run, world: World, seed: int) -> None:
    found = run({"fp32": (5.0, 60 * GIB), "adam": (5.0, 60 * GIB)}, seed=seed)
    assert seen(found) == [("adam", 0, True, OK), ("fp32", 0, True, OK)]
    assert world.most_alive == 1


@SEEDS
def test_a_large_rival_that_comes_first_leaves_the_others_their_heat(run: Run, seed: int) -> None:
    told = {"fp32": (5.0, 30 * GIB), "adam": (5.0, 10 * GIB), "attention_eager": (5.0, 80 * GIB)}
    found = {item.techniques: item for item in run(told, seed=seed)}
    assert (found["adam"].status, found["adam"].alone) == (OK, False)
    assert (found["attention_eager"].status, found["attention_eager"].alone) == (OK, True)


def test_what_is_crowded_out_runs_beside_the_baseline_alone(run: Run) -> None:
    # It comes last in any order: the others leave less memory than it needs, the baseline alone leaves enough.
    told = {"fp32": (5.0, 30 * GIB), "adam": (5.0, 5 * GIB), "attention_eager": (5.0, 68 * GIB)}
    found = {item.techniques: item for item in run(told)}
    assert (found["attention_eager"].status, found["attention_eager"].alone) == (OK, False)


def test_what_does_not_fit_beside_the_baseline_after_all_runs_by_itself(run: Run) -> None:
    found = run({"fp32": (5.0, 30 * GIB), "attention_eager": (5.0, 80 * GIB)})
    assert [(item.techniques, item.alone, item.status) for item in found if item.techniques != "fp32"] == [
        ("attention_eager", True, OK)
    ]


def test_only_what_does_not_fit_by_itself_is_out_of_memory(run: Run) -> None:
    found = run({"fp32": (5.0, 30 * GIB), "attention_eager": (5.0, 101 * GIB)})
    assert [(item.techniques, item.alone, item.status) for item in found if item.techniques != "fp32"] == [
        ("attention_eager", True, OOM)
    ]


def test_what_takes_all_memory_is_not_tried_beside_others(run: Run, world: World) -> None:
    found = run({"fp32": (5.0, 1 * GIB), "largest_batch": (5.0, 90 * GIB)}, alone=("largest_batch",))
    assert seen(found) == [("fp32", 0, True, OK), ("largest_batch", 0, True, OK)]
    assert world.most_alive == 1


RIVALS = dict.fromkeys(("adam", "sgd", "adamax", "nadam", "radam"), (5.0, GIB))


@SEEDS
@pytest.mark.parametrize("deadline_s", [1, 12, 20, 30, 40, 60, 100, 1000])
def test_no_arm_is_started_that_could_not_be_finished(run: Run, world: World, deadline_s: float, seed: int) -> None:
    found = run({"fp32": (5.0, GIB)} | RIVALS, deadline_s=deadline_s, seed=seed)
    labels = [item.techniques for item in found]
    # The baseline is measured once, whatever the time, and then as many rivals as can finish. For a rival that starts
    # before any other arm, it is not yet known how long it takes.
    assert labels.count("fp32") == 1
    unforeseen_s = 5.0 + 2.5 + 1.0 if world.started[0] != "fp32" else 0.0
    assert world.now_s <= max(deadline_s, 10.0) + unforeseen_s
    assert len(labels) == (6 if deadline_s >= 100 else len(labels))
    if deadline_s == 60:
        assert 2 <= len(labels) < 6


@pytest.mark.parametrize("deadline_s", [1, 30, 60])
def test_what_runs_by_itself_keeps_to_the_time_too(run: Run, world: World, deadline_s: float) -> None:
    told = {"fp32": (5.0, 60 * GIB)} | dict.fromkeys(RIVALS, (5.0, 60 * GIB))
    found = run(told, deadline_s=deadline_s, alone=tuple(RIVALS))
    assert [item.techniques for item in found].count("fp32") == 1
    assert world.now_s <= max(deadline_s, 10.0)
