"""The machine as a list of facts, with reasons for those that are unknown."""

from __future__ import annotations

from dataclasses import replace

from harness.record import Machine
from reports.wording.facts import machine_facts
from tests.reports.synthetic import machine


def shown(described: Machine, name: str) -> tuple[str, str]:
    return next((fact.text, fact.source) for fact in machine_facts(described) if fact.name == name)


def test_the_driver_stands_beside_the_cuda_that_torch_was_built_for() -> None:
    assert shown(machine("cuda"), "Driver") == ("580.95.05, CUDA 13.0", "")
    assert shown(machine("cuda"), "CUDA of PyTorch") == ("13.0", "")
    assert shown(machine(), "Driver") == shown(machine(), "CUDA of PyTorch") == ("unknown", "the run is on the CPU")


def test_an_unknown_driver_has_its_reason() -> None:
    closed = replace(machine("cuda"), driver=None, unknown={"driver": "NVML says Driver Not Loaded"})
    assert shown(closed, "Driver") == ("unknown", "NVML says Driver Not Loaded")
    half = replace(machine("cuda"), driver="580.95.05", unknown={"driver": "which CUDA it supports: NVML says Timeout"})
    assert shown(half, "Driver") == ("580.95.05", "which CUDA it supports: NVML says Timeout")
