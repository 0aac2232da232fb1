"""Which kernels a profiled step ran: fused attention, and CUDA graphs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

ATTENTION = (
    "scaled_dot_product",
    "flash_attn",
    "flash_attention",
    "flex_attention",
    "efficient_attention",
    # GPU kernels: PyTorch's FlashAttention, its later versions, the memory-efficient kernel and cuDNN's.
    "flash_fwd",
    "flashattn",
    "flashattention",
    "fmha_cutlassf",
    "sdpa_",
)
"""Parts of the names of operators and kernels for fused attention, in lower case."""

BACKWARD = ("backward", "bwd", "bprop", "dgrad")


def attention_kernels(events: Iterable[FunctionEvent], *, compiled: bool) -> list[str] | None:
    """The fused attention operators of a profiled step, and on a GPU the kernels by their own names.

    Empty if attention was plain matrix products. None if something was compiled and no such kernel was seen: a compiled
    graph may compute attention under any name.
    """
    names = {_short(event.name) for event in events}
    found = {name for name in names if any(mark in name.lower() for mark in ATTENTION)}
    kernels = {name for name in found if not any(mark in name.lower() for mark in BACKWARD)}
    if compiled and not kernels:
        return None
    # The generic operator only forwards to the kernel that really ran.
    return sorted(kernels - {"aten::scaled_dot_product_attention"}) or sorted(kernels)


def cuda_graph_launches(events: Iterable[FunctionEvent]) -> int | None:
    """CUDA graphs that a profiled step launched; None if the profiler saw no kernels, and so no launches either."""
    seen = list(events)
    if not any(event.device_type == DeviceType.CUDA for event in seen):
        return None
    return sum(event.name.startswith(("cudaGraphLaunch", "cuGraphLaunch")) for event in seen)


def _short(name: str) -> str:
    """A kernel's name without return type, template arguments and parameters."""
    return re.split("[<(]", name.removeprefix("void "), maxsplit=1)[0]
