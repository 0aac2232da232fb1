"""What only a GPU can show. Skipped, with the reason, where there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from bench.registry import techniques
from bench.spec import Plan, Protocol, WorkloadSpec
from harness import conformance
from harness.nursery import Nursery
from harness.prepare import prepare
from harness.record import Record
from harness.sweep import Sweep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU on this machine")


def measure(nursery: Nursery, text_folder: Path, log: Path, names: list[str]) -> list[Record]:
    spec = WorkloadSpec(model="gpt2/mini", batch=8, sequence=128, corpus=str(text_folder))
    compositions = tuple((name,) for name in names)
    protocol = dataclasses.replace(Protocol(), timeout_s=300)
    plan = Plan(
        name="gpu",
        workloads=(spec,),
        compositions=compositions,
        device="cuda",
        repetitions=1,
        protocol=protocol,
    )
    sweep = Sweep(prepare(plan, nursery), run_id="gpu", keep=lambda record: None, choose=lambda records: [], log=log)
    sweep.run(nursery)
    return sweep.records


@pytest.mark.parametrize("name", [name for name, item in techniques().items() if item.family != "planted"])
def test_a_technique_keeps_its_word_on_a_gpu(nursery: Nursery, text_folder: Path, name: str) -> None:
    for finding in conformance.run([(name,)], nursery, batch=16, corpus=str(text_folder), device="cuda"):
        assert finding.passed, finding


def test_gpu_figures_are_known(nursery: Nursery, text_folder: Path, tmp_path: Path) -> None:
    for record in measure(nursery, text_folder, tmp_path / "log", ["tf32"]):
        measured = record.measurement
        assert measured.sample_gpu_util_pct
        assert measured.sample_gpu_power_w
        assert measured.allocated_peak_bytes and measured.reserved_peak_bytes
        # Device events leave out only what the host does outside of them.
        assert sum(measured.round_step_times_s) <= sum(measured.round_host_times_s)
