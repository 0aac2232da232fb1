"""Where the time of a step goes, according to one profiled step on a CPU: by part, and by kind of operator."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from harness.evidence.kinds import Kind


class Part(StrEnum):
    """Parts of a step. Time between two operators belongs to the part of the second, which it leads up to."""

    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"


@dataclass(slots=True)
class Work:
    """The work of operators: FLOP, and bytes read or written."""

    flops: float = 0.0
    bytes: float = 0.0


NO_WORK = Work()

OPERATORS = {
    Kind.ATTENTION: ("scaled_dot_product", "flash_attention", "flex_attention"),
    Kind.NORMALISATION: ("layer_norm", "batch_norm", "rms_norm", "group_norm"),
    Kind.LOOKUPS: ("embedding", "index", "gather", "scatter", "softmax", "nll_loss", "cross_entropy"),
    Kind.PRODUCTS: ("mm", "mv", "linear", "matmul", "conv"),
    Kind.COPIES: ("copy", "clone", "contiguous", "cat", "stack"),
}
"""Marks in the name of an ATen operator; the first kind with a match counts."""

_COMPILED = ("Torch-Compiled Region", "CompiledFunction", "## Call CompiledFxGraph")
_LOADING = "enumerate(DataLoader)"
_OPTIMIZER, _BACKWARD, _ATEN = "Optimizer.", "autograd::engine::evaluate_function", "aten::"


def kind_of(name: str) -> Kind | None:
    """The kind of an operator by its name in a profile; None for other events."""
    if name.startswith(_COMPILED):
        return Kind.COMPILED
    if not name.startswith(_ATEN):
        return None
    plain = name.removeprefix(_ATEN)
    return next((kind for kind, marks in OPERATORS.items() if any(mark in plain for mark in marks)), Kind.ELEMENTWISE)


def step_shares(profiled: Iterable[FunctionEvent], work: Mapping[Kind, Work] | None) -> dict[str, Any]:
    """The certificate's fields: each part's share of the step, and each kind of operator's, with its work if known.
    Empty if the step was not on a CPU, or showed nothing."""
    events = [event for event in profiled if event.device_type == DeviceType.CPU and _s(event) > 0]
    own = _of_the_training_thread(events)
    if not own:
        return {}
    top = sorted((event for event in own if event.cpu_parent is None), key=lambda event: event.time_range.start)
    whole = max(event.time_range.end for event in top) - top[0].time_range.start
    parts, kinds = _parts(top, own), _kinds(own)
    kinds[Kind.BETWEEN] = whole - sum(kinds.values())
    shown = [kind for kind in Kind if kinds[kind] > 0]
    return {
        "forward_share": parts[Part.FORWARD] / whole,
        "backward_share": parts[Part.BACKWARD] / whole,
        "optimizer_share": parts[Part.OPTIMIZER] / whole,
        "kinds": [kind.value for kind in shown],
        "kind_shares": [kinds[kind] / whole for kind in shown],
        "kind_flops": None if work is None else [work.get(kind, NO_WORK).flops for kind in shown],
        "kind_bytes": None if work is None else [work.get(kind, NO_WORK).bytes for kind in shown],
    }


def _s(event: FunctionEvent) -> float:
    """The length of an event, in the profile's unit."""
    return float(event.time_range.end - event.time_range.start)


def _of_the_training_thread(events: Sequence[FunctionEvent]) -> list[FunctionEvent]:
    """Events of the busiest thread: others load data, or send what ranks exchange. Data loading in this thread is left
    out: the timed steps show how long that takes."""
    busy: defaultdict[int, float] = defaultdict(float)
    for event in events:
        if event.cpu_parent is None:
            busy[event.thread] += _s(event)
    most = max(busy, key=busy.__getitem__, default=None)
    return [event for event in events if event.thread == most and not _is_within(event, _LOADING)]


def _parts(top: Sequence[FunctionEvent], every: Sequence[FunctionEvent]) -> defaultdict[Part, float]:
    found: defaultdict[Part, float] = defaultdict(float)
    last_backward = max((event.time_range.end for event in top if event.name.startswith(_BACKWARD)), default=math.inf)
    until = top[0].time_range.start
    for event in top:
        if event.name.startswith(_BACKWARD):
            part = Part.BACKWARD
        elif event.name.startswith(_OPTIMIZER) or event.time_range.start >= last_backward:
            # After the gradients: clipping, or unscaling for a scaled loss.
            part = Part.OPTIMIZER
        else:
            part = Part.FORWARD
        found[part] += event.time_range.end - until
        until = max(until, event.time_range.end)
    within = sum(
        _s(event)
        for event in every
        if event.name.startswith(_OPTIMIZER) and event.cpu_parent and not _is_within(event.cpu_parent, _OPTIMIZER)
    )
    # An optimizer may take its steps in the backward pass.
    found[Part.OPTIMIZER] += within
    found[Part.BACKWARD] -= within
    return found


def _kinds(events: Iterable[FunctionEvent]) -> defaultdict[Kind, float]:
    found: defaultdict[Kind, float] = defaultdict(float)
    for event in events:
        kind = kind_of(event.name)
        if kind is not None:
            alone = _s(event) - sum(map(_s, event.cpu_children))
            found[Kind.OPTIMIZER if _is_within(event, _OPTIMIZER) else kind] += max(0.0, alone)
    return found


def _is_within(event: FunctionEvent | None, what: str) -> bool:
    """Whether the event or one of its callers has a name that begins like this."""
    while event is not None:
        if event.name.startswith(what):
            return True
        event = event.cpu_parent
    return False
