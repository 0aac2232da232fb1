"""When a technique has earned back its start: the extra time until it is warm, over what it saves afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Pays(StrEnum):
    AT_ONCE = "at once"
    AFTER = "after"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payback:
    """When a technique pays. `updates` is in updates of the baseline's size; its bounds follow from those of the
    speed-up, with the start time taken as measured. `pays` None is unknown; what never pays has no `updates`."""

    pays: Pays | None = None
    updates: float | None = None
    updates_low: float | None = None
    updates_high: float | None = None


def payback(extra_s: float | None, step_time_s: float | None, speedup: float, low: float, high: float) -> Payback:
    """For a technique that takes `extra_s` longer than the baseline until it is warm, and from then on trains `speedup`
    times as fast as the baseline, whose step takes `step_time_s`.

    `low` and `high` are the bounds of the speed-up. If they leave open whether it is faster, it is unknown whether it
    pays.
    """
    if high < 1:
        return Payback(pays=Pays.NEVER)
    if low <= 1 or extra_s is None or step_time_s is None:
        return Payback()
    if extra_s <= 0:
        return Payback(pays=Pays.AT_ONCE, updates=0.0, updates_low=0.0, updates_high=0.0)

    def after(ratio: float) -> float:
        return extra_s / (step_time_s * (1 - 1 / ratio))

    return Payback(pays=Pays.AFTER, updates=after(speedup), updates_low=after(high), updates_high=after(low))
