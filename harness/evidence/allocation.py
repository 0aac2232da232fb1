"""The most memory that tensors on a CPU have taken at once, which its allocator does not count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.autograd.profiler import profile

UPDATES = 2
"""Updates after which nothing grows any more: the optimizer has its state by then."""


def allocated_peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that were allocated at once while `run` ran, above what there was before, as torch's profiler has
    seen them: exact, where the resident set is in pages and keeps what was freed."""
    with profile(use_kineto=False, profile_memory=True) as profiled:
        run()
    results: Any = profiled.kineto_results
    alive = peak = 0
    for event in sorted(results.events(), key=lambda item: item.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak
