"""How much of a step the ranks spend exchanging data, and how much of that is not hidden by computation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

Intervals = list[tuple[float, float]]
"""Pairs of start and end, in any unit."""

COLLECTIVES = ("gloo:", "nccl")
"""How the names of events on the backends' own threads, and of nccl's kernels, begin."""


def union(intervals: Iterable[tuple[float, float]]) -> Intervals:
    """The same time without overlaps, sorted."""
    merged: Intervals = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def length(intervals: Intervals) -> float:
    """The total length of intervals without overlaps."""
    return sum(end - start for start, end in intervals)


def exposed(communication: Intervals, computation: Intervals) -> float:
    """How long there is communication without computation: |A or B| - |B|, from unions, not from sums over events."""
    return length(union([*communication, *computation])) - length(union(computation))


def shares(profiled: Iterable[FunctionEvent]) -> dict[str, float] | None:
    """Communication and exposed communication as shares of the profiled steps; None if no ranks communicated.

    On a GPU the events are kernels. On a CPU gloo's own threads mark communication, and computation is what ATen's
    operators cover. A receive that waits for the sender is communication.
    """
    events = [event for event in profiled if event.time_range.end > event.time_range.start]
    # Named ranges, including nccl's own, are on the device's timeline too, over their kernels and the gaps between
    # those: https://github.com/pytorch/pytorch/issues/130730.
    kernels = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    chosen = kernels or events
    talk = [event for event in chosen if event.name.lower().startswith(COLLECTIVES)]
    if not talk:
        return None
    work = [event for event in chosen if event not in talk] if kernels else _operators(events)
    whole = max(event.time_range.end for event in events) - min(event.time_range.start for event in events)
    communication = union((event.time_range.start, event.time_range.end) for event in talk)
    computation = union((event.time_range.start, event.time_range.end) for event in work)
    return {
        "communication": length(communication) / whole,
        "exposed": exposed(communication, computation) / whole,
    }


def _operators(events: Iterable[FunctionEvent]) -> list[FunctionEvent]:
    return [event for event in events if event.name.startswith(("aten::", "autograd::", "torch::autograd"))]


def over_ranks(ranks: Sequence[dict[str, float] | None]) -> dict[str, Any]:
    """The certificate's fields: means over the ranks, each rank's exposed communication, and the rank that the others
    wait for.

    The slowest rank has the least exposed communication, because it arrives last; `slowest_rank_lag` is by how much the
    mean exposed share of the others exceeds its own.
    """
    known = [rank for rank in ranks if rank is not None]
    if len(known) < 2 or len(known) < len(ranks):
        return {}
    waits = [rank["exposed"] for rank in known]
    slowest = min(range(len(waits)), key=waits.__getitem__)
    others = [wait for rank, wait in enumerate(waits) if rank != slowest]
    return {
        "communication_share": statistics.fmean(rank["communication"] for rank in known),
        "exposed_communication_share": statistics.fmean(waits),
        "slowest_rank": slowest,
        "slowest_rank_lag": statistics.fmean(others) - waits[slowest],
        "rank_exposed_shares": waits,
    }
