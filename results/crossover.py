"""The model size from which on a technique pays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.spec import BASELINE
from harness.record import Status
from results.compare import Comparison, Verdict

LEAST_SIZES = 3
"""Two sizes make no curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """One composition over the sizes of one family, smallest first; `parameters` are the baseline's for each size.

    `pays_from` is the index of the smallest size from which on every size is proven faster; None if there is none.
    """

    family: str
    techniques: str
    sizes: tuple[Comparison, ...]
    parameters: tuple[int, ...]

    @property
    def pays_from(self) -> int | None:
        """The index, or None."""
        index = len(self.sizes)
        while index and self.sizes[index - 1].verdict is Verdict.FASTER:
            index -= 1
        return index if index < len(self.sizes) else None


def crossovers(comparisons: Sequence[Comparison]) -> list[Crossover]:
    """Every composition measured on at least LEAST_SIZES sizes of a family, `FAMILY/SIZE`, in one phase."""
    baselines = {item.workload: item for item in comparisons if item.techniques == BASELINE}
    groups: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for item in comparisons:
        family, has_size, size = item.workload.partition("/")
        reference = baselines.get(item.workload)
        is_measured = item.techniques != BASELINE and item.status is Status.OK and item.speedup is not None
        if is_measured and has_size and reference is not None and reference.parameters:
            phase = size.partition(" ")[2]
            groups[f"{family} {phase}".strip(), item.techniques].append(item)
    made = []
    for (family, techniques), items in groups.items():
        if len(items) >= LEAST_SIZES:
            by_size = sorted(items, key=lambda item: baselines[item.workload].parameters or 0)
            counts = tuple(baselines[item.workload].parameters or 0 for item in by_size)
            made.append(Crossover(family=family, techniques=techniques, sizes=tuple(by_size), parameters=counts))
    return made
