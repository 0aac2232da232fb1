"""How long operators take, each timed by itself.

In training an operator seldom finds its tensors in the caches: many other operators have run since its inputs were made
and the memory of its results was last used. It is therefore timed on tensors that were not used just now: copies of its
inputs and results, one after the other. On tensors it has just used, it would be faster than in training.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from harness.prediction.calls import ANSWERED, ASKED, Call, tensors

COLD_BYTES = 48 << 20
"""The size of all copies together: larger than the share of the caches in which an operator finds its tensors."""

COPIES = 64
"""The most copies: small tensors stay in the outer caches in training too."""

WARM_BYTES = 16 << 10
"""Smaller tensors cost nothing to fetch; calling the operator is what takes time."""

LONG_S = 0.02
"""Operators that take longer do not gain from the caches, and are timed once."""

ENDLESS_S = 1.0
"""For operators that take longer, what a library prepares at the first call does not matter."""

ROUNDS = 2
LEAST_S = 0.5e-3
"""The minimum length of a round, in seconds: the clock's own time is then negligible."""

NORMAL = (1e-6, 1e6)
"""The range of numbers in training: others can take an operator longer."""

INDICES = (1, 0)
"""The values of integers, in order of preference, so that they are valid indices. Index 0 often stands for padding, for
which some operators do nothing: it is used only where index 1 does not exist."""

SEEN = 1 << 16
"""How many elements are inspected."""


def time_operators(folder: str, seconds: float) -> None:
    """Task: time the calls in a folder for so many seconds. Writes a line for each: its time in seconds, or null if it
    cannot be made by itself."""
    calls: list[Call] = json.loads((Path(folder) / ASKED).read_text(encoding="utf-8"))
    deadline_s, pools = time.monotonic() + seconds, [Pools(index) for index in INDICES]
    with (Path(folder) / ANSWERED).open("w", encoding="utf-8") as answers:
        for call in itertools.takewhile(lambda _: time.monotonic() < deadline_s, calls):
            print(json.dumps(time_operator(call, pools)), file=answers, flush=True)


def time_operator(call: Call, pools: Sequence[Pools]) -> float | None:
    """The seconds that one call takes; None if it cannot be made by itself."""
    types = {kind for _, _, kind in tensors(call) if getattr(torch, kind).is_floating_point}
    # Fake tensors do not always report the types of real ones: calls with several types are also tried with just one.
    for drawn, as_float in itertools.product(pools, (False, True) if len(types) > 1 else (False,)):
        try:
            with torch.no_grad():
                return _timed(call, drawn, as_float=as_float)
        except Exception:  # Whatever it is, only this call is then unknown.
            drawn.forget()
    return None


def _timed(call: Call, pools: Pools, *, as_float: bool) -> float:
    name, args, named = json.loads(call)
    function = _function(name)
    changes = function._schema.is_mutable

    def made(copy: int, size: int) -> Callable[[], Any]:
        place = _Place(pools, copy * size, as_float=as_float)
        positional, keywords = place.made(args), place.made(named)
        return lambda: function(*positional, **keywords)

    try:
        first = made(0, 0)
        first_s, result = _once(first)
        if first_s > ENDLESS_S:
            return first_s
        again_s, result = _once(first)  # The first time, a library may have prepared itself.
        if again_s > LONG_S:
            return again_s
        size = sum(
            extent(shape, strides) * _dtype(kind, as_float=as_float).itemsize for shape, strides, kind in tensors(call)
        )
        each = size + sum(item.nbytes for item in tree_leaves(result) if isinstance(item, Tensor) and not changes)
        copies = 1 if each < WARM_BYTES else max(2, min(COPIES, -(-COLD_BYTES // each)))
        return _best_s([made(copy, size) for copy in range(copies)], pools.mend if changes else lambda: None)
    finally:
        if changes:
            pools.forget()


def _best_s(runs: Sequence[Callable[[], Any]], between: Callable[[], object]) -> float:
    """The mean seconds per call in the fastest round of calls to all of them."""
    kept: list[Any] = [None] * len(runs)
    times, best_s = 1, float("inf")
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        for _ in range(times):
            for index, run in enumerate(runs):
                # As in training, results reuse the memory of earlier results.
                kept[index] = run()
        taken_s = time.perf_counter() - begun
        best_s = min(best_s, taken_s / (times * len(runs)))
        times = max(times, int(LEAST_S / taken_s * times) + 1) if taken_s < LEAST_S else times
        between()
    return best_s


def _once(run: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = run()
    return time.perf_counter() - begun, result


def _function(name: str) -> Any:
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


class Pools:
    """Memory that the tensors of calls are views of: one pool for each type, which grows on demand. Integers have the
    value `index`."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._by_type: dict[torch.dtype, Tensor] = {}

    def view(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype, offset: int) -> Tensor:
        end = offset + extent(shape, strides)
        if dtype not in self._by_type or len(self._by_type[dtype]) < end:
            self._by_type.pop(dtype, None)
            self._by_type[dtype] = self._drawn(max(end, COLD_BYTES // dtype.itemsize), dtype)
        return torch.as_strided(self._by_type[dtype], shape, strides, offset)

    def mend(self) -> None:
        """Draw new values where calls have made them too large or too small."""
        for dtype, pool in self._by_type.items():
            seen = pool[:: max(1, len(pool) // SEEN)]
            is_usual = (seen > NORMAL[0]) & (seen < NORMAL[1]) if dtype.is_floating_point else seen == self._index
            if not bool(is_usual.all()):
                pool.copy_(self._drawn(len(pool), dtype))

    def forget(self) -> None:
        """Drop the pools after a call that changed them or failed."""
        self._by_type.clear()

    def _drawn(self, count: int, dtype: torch.dtype) -> Tensor:
        if not dtype.is_floating_point:
            return torch.full((count,), self._index, dtype=dtype)
        # A random block of possible probabilities, repeated: drawing all values would take longer than what is timed.
        block = (0.1 + 0.8 * torch.rand(min(count, 1 << 16))).to(dtype)
        return block.repeat(-(-count // len(block)))[:count]


class _Place:
    """Makes the arguments of one copy of a call, from a byte offset in every pool on."""

    def __init__(self, pools: Pools, offset_bytes: int, *, as_float: bool) -> None:
        self._pools, self._as_float = pools, as_float
        self._offset_bytes = offset_bytes

    def made(self, told: Any) -> Any:
        match told:
            case {"tensor": [shape, strides, dtype]}:
                kind = _dtype(dtype, as_float=self._as_float)
                offset = -(-self._offset_bytes // kind.itemsize)
                self._offset_bytes += extent(shape, strides) * kind.itemsize
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


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """The number of elements from the first to the last one of a tensor."""
    if not all(shape):
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _dtype(name: str, *, as_float: bool) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return torch.float32 if as_float and found.is_floating_point else found
