"""Exposed communication is what no computation hides, by the union of intervals."""

from __future__ import annotations

import pytest
from torch._C._autograd import DeviceType
from torch.autograd.profiler import profile, record_function
from torch.autograd.profiler_util import FunctionEvent

from harness.evidence.communication import exposed, length, over_ranks, shares, union


def test_overlapping_intervals_count_once() -> None:
    assert union([(4, 6), (0, 2), (1, 3), (6, 7)]) == [(0, 3), (4, 7)]
    assert length(union([(0, 2), (1, 3)])) == 3


@pytest.mark.parametrize(
    ("communication", "computation", "expected"),
    [
        ([(0, 10)], [], 10),
        ([(0, 10)], [(0, 10)], 0),
        ([(0, 10)], [(2, 4), (3, 5)], 7),  # Summing up kernels would hide 4 instead of 3.
        ([(0, 4), (2, 6)], [(5, 9)], 5),
        ([(0, 1)], [(5, 9)], 1),
    ],
)
def test_exposed_is_communication_without_computation(
    communication: list[tuple[float, float]], computation: list[tuple[float, float]], expected: float
) -> None:
    assert exposed(communication, computation) == expected


def test_the_slowest_rank_waits_least() -> None:
    merged = over_ranks([{"communication": 0.5, "exposed": 0.4}, {"communication": 0.3, "exposed": 0.1}])
    assert merged["slowest_rank"] == 1
    assert merged["slowest_rank_lag"] == pytest.approx(0.3)
    assert merged["exposed_communication_share"] == pytest.approx(0.25)
    assert over_ranks([None]) == {} == over_ranks([None, {"communication": 0.5, "exposed": 0.4}])


def event(name: str, start: float, end: float, *, annotation: bool = False, device: str = "CUDA") -> FunctionEvent:
    kind = DeviceType.CUDA if device == "CUDA" else DeviceType.CPU
    return FunctionEvent(
        id=0, name=name, thread=0, start_us=start, end_us=end, device_type=kind, is_user_annotation=annotation
    )


def test_named_ranges_on_a_gpus_timeline_are_neither_communication_nor_computation() -> None:
    """Kineto's timeline of a DistributedDataParallel step: nccl names a range around its kernel; so does a module."""
    kernels = [
        event("void cutlass::Kernel2<gemm>", 0, 40),
        event("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096>)", 30, 80),
        event("multi_tensor_apply_kernel", 90, 100),
    ]
    ranges = [
        event("nccl:all_reduce", 30, 95, annotation=True),
        event("DistributedDataParallel.forward", 0, 100, annotation=True),
        event("Optimizer.step#AdamW.step", 20, 100, annotation=True),
    ]
    host = [event("aten::mm", 0, 5, device="CPU"), event("DistributedDataParallel.forward", 0, 9, device="CPU")]
    seen = shares([*kernels, *ranges, *host])
    assert seen is not None and seen["communication"] == pytest.approx(0.5)
    assert seen["exposed"] == pytest.approx(0.4)
    assert shares([kernels[0], *ranges, *host]) is None


def test_the_profiler_tells_which_ranges_code_has_named() -> None:
    with profile(use_kineto=True) as profiled, record_function("a range"):
        sum(range(10))
    named = {item.name: item.is_user_annotation for item in profiled.function_events or ()}
    assert named["a range"] is True
