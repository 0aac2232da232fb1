"""What a technique declares, and which techniques go together. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import TypeVar


class Stage(IntEnum):
    """When a technique is applied, whatever order the user typed.

    SHAPE builds another model in place of the baseline's; MODEL changes the existing one. OPTIMIZER chooses what is
    made of the parameters, which DISTRIBUTE and STEP may wrap.
    """

    SHAPE = 1
    MODEL = 2
    NUMERICS = 3
    MEMORY = 4
    COMPILE = 5
    OPTIMIZER = 6
    DISTRIBUTE = 7
    STEP = 8
    DATA = 9


class Change(Enum):
    """What a technique is allowed to change. Any other difference from the baseline is unequal work."""

    NUMERICS = "numerics"
    TRAINED_PARAMETERS = "trained parameters"
    ARCHITECTURE = "architecture"
    OBJECTIVE = "objective"
    DATA_ORDER = "data order"
    SCHEDULE = "schedule"
    UPDATE_RULE = "update rule"
    BATCH_SIZE = "batch size"


class Objective(StrEnum):
    """What a recipe minimizes: the time of an update, the time to the same loss, or the energy of an update."""

    PACE = "pace"
    WORTH = "worth"
    ENERGY = "energy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that decide which techniques go together. Only one technique can take a `slot`. `excludes` names
    techniques, or slots whose techniques are all excluded."""

    name: str
    stage: Stage
    excludes: frozenset[str]
    slot: str | None


Declared = TypeVar("Declared", bound=Facts)


def arrange(names: Iterable[str], known: Mapping[str, Declared]) -> list[Declared]:
    """The techniques in the order of application.

    Raises ValueError for an unknown name (with the nearest ones) or for two that exclude each other.
    """
    chosen = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see `trainpace list techniques`"
            raise ValueError(f"technique {name!r} is unknown: {hint}")
        chosen.append(known[name])
    chosen.sort(key=lambda item: (item.stage, item.name))
    for index, first in enumerate(chosen):
        for second in chosen[index + 1 :]:
            if _in_conflict(first, second):
                raise ValueError(f"techniques {first.name!r} and {second.name!r} exclude each other: use one of them")
    return chosen


def _in_conflict(first: Facts, second: Facts) -> bool:
    if first.slot is not None and first.slot == second.slot:
        return True
    return any(
        not one.excludes.isdisjoint({other.name, other.slot}) for one, other in ((first, second), (second, first))
    )
