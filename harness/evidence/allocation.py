"""The most memory that tensors on a CPU have taken at once, which the CPU allocator does not count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.autograd.profiler import profile

UPDATES = 2
"""After this many updates memory no longer grows: the optimizer has its state by then."""


def allocated_peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that were allocated at once while `run` ran, above the level before, according to torch's
    profiler. It is exact, unlike the resident set, which is in pages and keeps what was freed."""
    with profile(use_kineto=False, profile_memory=True) as profiled:
        run()
    results: Any = profiled.kineto_results
    alive = peak = 0
    for event in sorted(results.events(), key=lambda item: item.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak
