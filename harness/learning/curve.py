"""What a training is asked to do, and its result: plain data, to be stored and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.spec import BASELINE
from harness.record import Status

FURTHER = 3
"""A training that continues until it reaches a loss takes at most this many times the updates that were asked for."""


def is_over(losses: Sequence[float], patience: int | None) -> bool:
    """Whether none of the last `patience` evaluations found a lower loss than before."""
    return patience is not None and len(losses) - 1 - losses.index(min(losses)) >= patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One training. `rate` is a factor on the workload's learning rate, which is constant or, `on_course`, rises and
    falls to zero as in a long training (harness.learning.course); such a training is evaluated only at its end. A
    training whose held-out loss is above `until_loss` after its `updates` continues until it is not."""

    techniques: tuple[str, ...]
    seed: int
    rate: float
    updates: int
    on_course: bool = False
    until_loss: float | None = None

    @property
    def most_updates(self) -> int:
        return self.updates if self.until_loss is None else FURTHER * self.updates

    @property
    def label(self) -> str:
        return "+".join(self.techniques) or BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The result: the held-out loss after each number of `updates`, as far as it got; `train_losses` are the mean
    losses of the updates before each. An update has `tokens_per_update` tokens and `samples_per_update` samples;
    `seen_share` of the stretches that the model was trained on are held out. `scores`, by name, are those of a
    classifier, or of the text that an encoder-decoder model writes, after the updates that were asked for. The updates
    took `updates_s`, and the start and the evaluations `other_s`, while other trainings ran."""

    asked: Asked
    status: Status = Status.OK
    reason: str | None = None
    updates: tuple[int, ...] = ()
    held_out_losses: tuple[float, ...] = ()
    train_losses: tuple[float, ...] = ()
    tokens_per_update: float | None = None
    samples_per_update: float | None = None
    seen_share: float = 0.0
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    updates_s: float = 0.0
    other_s: float = 0.0

    @property
    def stopped_after(self) -> int | None:
        """The updates after which it ended by itself, before its last permitted update and before it reached the
        loss."""
        if self.status is not Status.OK or not self.updates or self.updates[-1] >= self.asked.most_updates:
            return None
        until = self.asked.until_loss
        is_there = until is not None and self.held_out_losses[-1] <= until
        return None if is_there and self.updates[-1] >= self.asked.updates else self.updates[-1]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Training:
        """The inverse of `to_json`."""
        lists = {name: tuple(data[name]) for name in ("updates", "held_out_losses", "train_losses")}
        asked = Asked(**{**data["asked"], "techniques": tuple(data["asked"]["techniques"])})
        return cls(**{**data, **lists, "asked": asked, "status": Status(data["status"])})
