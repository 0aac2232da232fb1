"""How memory grows with the batch, for every batch, from two predictions.

At every moment of training, the size of each tensor is constant or grows by a fixed amount per sample. The same program
makes and frees the same tensors in the same order on two batches. Two predictions therefore give, for each moment, the
bytes held for any batch and the bytes that each sample adds; the peak of any batch is the highest of these moments.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.prediction.limits import Unforeseen

Line = tuple[float, float]
"""Bytes for any batch, and bytes that each sample adds."""


@dataclass(frozen=True, slots=True)
class Growth:
    """The peak of one rank as a function of the global batch: the highest of these lines."""

    lines: tuple[Line, ...]

    def peak_bytes(self, batch: int) -> int:
        return round(max(held + each * batch for held, each in self.lines))


def growth_of(told: Sequence[Sequence[float]]) -> Growth:
    """From lines given as lists."""
    return Growth(tuple((held, each) for held, each in told))


def growth(
    changes: tuple[Sequence[int], Sequence[int]], batches: tuple[int, int], held_bytes: int = 0, before_bytes: int = 0
) -> Growth:
    """The growth that two batches show, given for each the bytes that were allocated (negative: freed) in order.
    `held_bytes` is held in addition all the time, and `before_bytes` is the earlier peak.

    Raises Unforeseen if the two are not the same program.
    """
    fewer, more = changes
    if len(fewer) != len(more) or any((few > 0) != (many > 0) for few, many in zip(fewer, more, strict=True)):
        raise Unforeseen("it works differently on a larger batch")
    lines: set[Line] = {(max(held_bytes, before_bytes), 0.0)}
    for few, many in zip(itertools.accumulate(fewer), itertools.accumulate(more), strict=True):
        each = (many - few) / (batches[1] - batches[0])
        lines.add((held_bytes + few - each * batches[0], each))
    return Growth(tuple(_highest(lines)))


def _highest(lines: Iterable[Line]) -> list[Line]:
    """The lines that are the highest of all for some batch, sorted by what each sample adds."""
    hull: list[Line] = []
    for line in sorted(lines, key=lambda line: (line[1], line[0])):
        while hull and hull[-1][0] <= line[0]:
            # The previous line adds less per sample and holds no more: it is never the highest.
            hull.pop()
        while len(hull) > 1 and _meets(hull[-1], line) <= _meets(hull[-2], hull[-1]):
            hull.pop()
        hull.append(line)
    return hull


def _meets(flat: Line, steep: Line) -> float:
    """The batch from which on the steeper line is higher."""
    return (flat[0] - steep[0]) / (steep[1] - flat[1])
