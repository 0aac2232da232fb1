"""The course of a long training: its learning rates, where it stands, and what it has learnt. Plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WARM_UP = 0.02
"""The share of all updates until the full learning rate is reached. The rate then falls linearly to zero, which gives
the lowest loss at the end of a given number of updates (arXiv 2502.15938)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The learning rate over so many updates. A course that is replanned on the way, because there is time for fewer or
    more updates, begins at update `since`, at the `progress` that the previous one had reached."""

    updates: int
    since: int = 0
    progress: float = 0.0

    def progress_at(self, update: float) -> float:
        """How much of the course is done, from 0 to 1."""
        return self.progress + (1 - self.progress) * (update - self.since) / max(1, self.updates - self.since)

    def rate(self, update: int) -> float:
        """The share of the full learning rate for update number `update`, counted from 0."""
        progress = self.progress_at(update + 0.5)
        return min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP))

    def laid_anew(self, taken: int, updates: int) -> Course:
        """The course replanned after `taken` updates, to end after `updates`."""
        return Course(updates=max(updates, taken + 1), since=taken, progress=self.progress_at(taken))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was known after so many `updates` and `tokens`, `elapsed_s` after the beginning, without the time between an
    interruption and the restart. `train_loss` is the mean since the previous point, None before the first update."""

    updates: int
    tokens: int
    elapsed_s: float
    held_out_loss: float
    train_loss: float | None
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """The state of a training that continues from the file `checkpoint`, and all points so far. Since the last point
    there were `losses` losses, with the sum `losses_sum`."""

    course: Course
    updates: int
    tokens: int
    elapsed_s: float
    checkpoint: str
    points: Sequence[Point]
    losses: int = 0
    losses_sum: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Stand:
        """The inverse of `to_json`."""
        points = tuple(Point(**item) for item in data["points"])
        return cls(**{**data, "course": Course(**data["course"]), "points": points})
