"""How long an update takes: each operator that it calls is timed by itself, as often as it is called.

In training an operator seldom finds in the caches what it works on: its inputs were made, and its results' memory was
last used, before many others had their turn. It is therefore timed on tensors that were not used just now: many copies
of its inputs and results, one after the other, together larger than a core's share of the caches. On tensors that it
has just used, the same operators take about three quarters of the time that training takes (docs/before.md).
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from harness.prediction.operators import Call

COLD_BYTES = 48 << 20
"""What the copies take together: more than the share of the caches that an operator finds its tensors in."""

COPIES = 64
"""As many at the most: small tensors stay in the outer caches in training too."""

WARM_BYTES = 16 << 10
"""Smaller ones cost nothing to fetch; calling the operator does."""

LONG_S = 0.02
"""What takes longer does not gain from what is in the caches, and is timed once."""

ROUNDS = 2
LEAST_S = 0.5e-3
"""A round takes so long at least: the clock's own time is nothing of it."""

NORMAL = (1e-6, 1e6)
"""Numbers in between, as training has them: others can take an operator longer."""

INDICES = (1, 0)
"""As an index a whole number is of what exists. The first often stands for padding, of which some operators do nothing:
it is taken where there is no second."""

SEEN = 1 << 16
"""So many of them are looked at."""


def time_operators(calls: Sequence[Call]) -> list[float | None]:
    """Task: the seconds that each call takes; None for one that cannot be made by itself."""
    pools = [_Pools(index) for index in INDICES]
    with torch.no_grad():
        return [_call_s(call, pools) for call in calls]


def _call_s(call: Call, pools: Sequence[_Pools]) -> float | None:
    # What fake tensors say of types is not always what real ones have: it is tried once more in float32.
    for drawn, as_float in itertools.product(pools, (False, True)):
        try:
            return _timed(call, drawn, as_float=as_float)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
            drawn.forget()
    return None


def _timed(call: Call, pools: _Pools, *, as_float: bool) -> float:
    name, args, named = json.loads(call)
    function = _function(name)
    changes = function._schema.is_mutable

    def made(copy: int, of_bytes: int) -> Callable[[], Any]:
        place = _Place(pools, copy * of_bytes, as_float=as_float)
        positional, keywords = place.made(args), place.made(named)
        return lambda: function(*positional, **keywords)

    first = made(0, 0)
    size = _extent_bytes([args, named], as_float=as_float)
    result = first()  # A library may prepare itself for such a call.
    begun = time.perf_counter()
    result = first()
    first_s = time.perf_counter() - begun
    if first_s > LONG_S:
        return first_s
    each = size + sum(item.nbytes for item in tree_leaves(result) if isinstance(item, Tensor) and not changes)
    copies = 1 if each < WARM_BYTES else max(2, min(COPIES, -(-COLD_BYTES // each)))
    runs = [made(copy, size) for copy in range(copies)]
    kept: list[Any] = [None] * copies
    times, best_s = 1, float("inf")
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        for _ in range(times):
            for index, run in enumerate(runs):
                kept[index] = run()
        taken_s = time.perf_counter() - begun
        best_s = min(best_s, taken_s / (times * copies))
        times = max(times, int(LEAST_S / taken_s * times) + 1) if taken_s < LEAST_S else times
    if changes:
        pools.mend()
    return best_s


def _function(name: str) -> Any:
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


class _Pools:
    """Memory that the tensors of calls are views of: one for each type, that grows with what is asked for. Those of
    whole numbers have this `index`."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._by_type: dict[torch.dtype, Tensor] = {}

    def view(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype, offset: int) -> Tensor:
        end = offset + _extent(shape, strides)
        pool = self._by_type.get(dtype)
        if pool is None or len(pool) < end:
            pool = self._by_type[dtype] = self._drawn(max(end, COLD_BYTES // dtype.itemsize), dtype)
        return torch.as_strided(pool, shape, strides, offset)

    def mend(self) -> None:
        """Draw anew what calls have made too large or too small."""
        for dtype, pool in self._by_type.items():
            seen = pool[:: max(1, len(pool) // SEEN)]
            is_as_drawn = (seen > NORMAL[0]) & (seen < NORMAL[1]) if dtype.is_floating_point else seen == self._index
            if not bool(is_as_drawn.all()):
                self._by_type[dtype] = self._drawn(len(pool), dtype)

    def forget(self) -> None:
        """What a call that failed has left."""
        self._by_type.clear()

    def _drawn(self, count: int, dtype: torch.dtype) -> Tensor:
        if not dtype.is_floating_point:
            return torch.full((count,), self._index, dtype=dtype)
        # A random block many times over: to draw all of it takes longer than what is timed.
        block = (0.1 + torch.rand(min(count, 1 << 16))).to(dtype)
        return block.repeat(-(-count // len(block)))[:count]


class _Place:
    """Makes the arguments of one copy of a call, from so many bytes of every pool on."""

    def __init__(self, pools: _Pools, offset_bytes: int, *, as_float: bool) -> None:
        self._pools, self._as_float = pools, as_float
        self._offset_bytes = offset_bytes

    def made(self, told: Any) -> Any:
        match told:
            case {"tensor": [shape, strides, dtype]}:
                kind = _dtype(dtype, as_float=self._as_float)
                offset = -(-self._offset_bytes // kind.itemsize)
                self._offset_bytes += _extent(shape, strides) * kind.itemsize
                return self._pools.view(shape, strides, kind, offset)
            case {"torch": name}:
                return getattr(torch, name)
            case {"device": name}:
                return torch.device(name)
            case {"named": items}:
                return {name: self.made(item) for name, item in items.items()}
            case list():
                return [self.made(item) for item in told]
        return told


def _extent_bytes(told: Any, *, as_float: bool) -> int:
    """What the tensors of a call take."""
    match told:
        case {"tensor": [shape, strides, dtype]}:
            return _extent(shape, strides) * _dtype(dtype, as_float=as_float).itemsize
        case {"named": items}:
            return sum(_extent_bytes(item, as_float=as_float) for item in items.values())
        case list():
            return sum(_extent_bytes(item, as_float=as_float) for item in told)
    return 0


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to the last of a tensor."""
    if not all(shape):
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _dtype(name: str, *, as_float: bool) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return torch.float32 if as_float and found.is_floating_point else found
