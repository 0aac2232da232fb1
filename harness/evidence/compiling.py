"""What torch.compile has done so far in this process."""

from __future__ import annotations

import sys
from typing import Any


def compile_facts() -> dict[str, int | None]:
    """Graph breaks, recompilations and skipped CUDA graphs so far in this process; None if nothing was compiled."""
    metrics = _compilations()
    if not metrics:
        return {"graph_breaks": None, "recompiles": None, "cudagraph_skips": None}
    counters = sys.modules["torch._dynamo.utils"].counters
    return {
        "graph_breaks": sum(counters["graph_break"].values()),
        # An id is frame/attempt: attempts after the first are recompilations of the same frame.
        "recompiles": sum(not str(item.compile_id).endswith("/0") for item in metrics),
        "cudagraph_skips": counters["inductor"]["cudagraph_skips"],
    }


def compile_seconds() -> float | None:
    """Seconds spent in torch.compile so far in this process; None if nothing was compiled."""
    metrics = _compilations()
    return sum(item.entire_frame_compile_time_s or 0.0 for item in metrics) if metrics else None


def _compilations() -> list[Any]:
    utils = sys.modules.get("torch._dynamo.utils")
    return list(utils.get_compilation_metrics()) if utils else []
