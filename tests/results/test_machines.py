"""Machines side by side, by what both have measured; absolute figures come from one of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.record import Machine, Record
from reports.page import html
from reports.text import machines as text
from results import compaction, store
from results.compare import compare
from results.machines import side_by_side
from results.summary import conditions, incomparable
from tests.reports.synthetic import PLAN, machine, record

SLOWER = 2.0


def measured_on(name: str, repetitions: range, slower: float) -> list[Record]:
    return [
        dataclasses.replace(record(label, repetition, step_s=slower * step_s), machine_id=name)
        for repetition in repetitions
        for label, step_s in (("fp32", 0.01), ("compile", 0.008))
    ]


@pytest.fixture
def machines() -> tuple[Machine, Machine]:
    return (
        dataclasses.replace(machine(), machine_id="quick"),
        dataclasses.replace(machine(), machine_id="slow", device_name="an older CPU"),
    )


@pytest.fixture
def records() -> list[Record]:
    return measured_on("quick", range(4), 1.0) + measured_on("slow", range(4, 6), SLOWER)


def test_one_is_faster_by_the_baseline_that_both_have_measured(
    records: list[Record], machines: tuple[Machine, Machine]
) -> None:
    first, other = side_by_side(records, machines)
    assert (first.machine.machine_id, first.heats, first.speed) == ("quick", 4, 1.0)
    assert other.heats == 2 and other.workloads == ("gpt2/tiny",)
    assert other.speed == pytest.approx(1 / SLOWER, rel=0.1)
    assert other.low is not None and other.high is not None and other.low < 1 / SLOWER < other.high < 1


def test_what_both_have_not_measured_is_not_known(records: list[Record], machines: tuple[Machine, Machine]) -> None:
    apart = [dataclasses.replace(item, workload="bert/mini") if item.machine_id == "slow" else item for item in records]
    _, other = side_by_side(apart, machines)
    assert (other.speed, other.low, other.workloads) == (None, None, ())
    assert text.row(other)["speed"] == "unknown"


def test_speed_ups_are_of_all_and_times_of_one(records: list[Record], machines: tuple[Machine, Machine]) -> None:
    _, compiled = compare(records, machines[0])
    assert compiled.repetitions == 6
    assert compiled.speedup == pytest.approx(1.25, rel=0.05)
    assert compiled.step_time_s == pytest.approx(0.008, rel=0.05)
    _, there = compare(records, machines[1])
    assert there.step_time_s == pytest.approx(SLOWER * 0.008, rel=0.05) and there.speedup == compiled.speedup


def test_a_heat_is_of_one_machine(records: list[Record]) -> None:
    assert incomparable([conditions(records)]) == []
    mixed = [dataclasses.replace(item, repetition=item.repetition % 4) for item in records]
    assert "machine_id: quick, slow" in incomparable([conditions(mixed)])[0]
    alone = [item for item in records if item.machine_id == "quick"]
    assert "machine_id: quick, slow" in incomparable([conditions(alone), conditions(records)])[0]


def test_every_machine_is_kept_and_shown(
    records: list[Record], machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    for own in machines:
        heat = [item for item in records if item.machine_id == own.machine_id]
        store.write_whole(heat, tmp_path, machine=own, plan=PLAN)
    for _ in range(2):
        assert store.read_machines(tmp_path) == list(machines)
        assert store.read_machine(tmp_path) == machines[0]
        assert json.dumps(sorted(item.machine_id for item in store.read(tmp_path)))
        compaction.compact(tmp_path)
    assert len(list((tmp_path / "records").glob("*.parquet"))) == 1
    page = html.render(compare(records, machines[0]), records, machines[0], PLAN, machines=machines)
    assert "an older CPU" in page and "Machines</h2>" in page
