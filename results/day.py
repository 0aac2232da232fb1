"""The best language model for a given time: the loss expected of each size, and the result of the one trained."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.corpus import write_atomically
from harness.learning.course import Point
from results.scaling import Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One size of the family, with the `updates` that fit into the time. `rate` is a factor of the workload's learning
    rate. `expected` is its loss on held-out text; if it is None, `reason` says why. `peak_memory_bytes` is that of
    tensors; `joules` is None where the machine does not count energy. `bytes_per_token` is that of the held-out text.
    """

    model: str
    parameters: int | None = None
    update_s: float | None = None
    updates: int | None = None
    tokens_per_update: int | None = None
    peak_memory_bytes: int | None = None
    rate: float | None = None
    expected: Expected | None = None
    joules: float | None = None
    reason: str | None = None
    bytes_per_token: float = 1.0

    @property
    def tokens(self) -> int | None:
        """All tokens of the training; None where the number is unknown."""
        known = self.updates is not None and self.tokens_per_update is not None
        return self.updates * self.tokens_per_update if known else None  # type: ignore[operator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The result of the training, and why it ended."""

    loss: float
    updates: int
    tokens: int
    elapsed_s: float
    ended: str
    texts: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The plan for training a family under `techniques` for so many `minutes`, or so many `updates`. Once the `chosen`
    size is trained, `reached` is the result. Planning took `planning_s`."""

    family: str
    minutes: float
    techniques: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    chosen: str
    updates: int | None
    seed: int
    device: str
    device_name: str
    version: str
    planning_s: float
    reached: Reached | None = None

    @property
    def candidate(self) -> Candidate:
        """The size that is trained."""
        return next(item for item in self.candidates if item.model == self.chosen)

    def to_json(self) -> dict[str, Any]:
        """As JSON, with what a program needs most at the top."""
        expected = self.candidate.expected
        head = {
            "model": self.chosen,
            "predicted_loss": expected.loss if expected else None,
            "predicted_loss_low": expected.low if expected else None,
            "predicted_loss_high": expected.high if expected else None,
            "reached_loss": self.reached.loss if self.reached else None,
        }
        sizes = [dataclasses.asdict(item) | {"tokens": item.tokens} for item in self.candidates]
        return head | dataclasses.asdict(self) | {"candidates": sizes}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Day:
        """The inverse of `to_json`."""
        names = {field.name for field in dataclasses.fields(cls)}
        kept = {name: value for name, value in data.items() if name in names}
        fields = {field.name for field in dataclasses.fields(Candidate)}
        candidates = []
        for item in kept["candidates"]:
            own = {name: value for name, value in item.items() if name in fields}
            own["expected"] = Expected(**own["expected"]) if own["expected"] else None
            candidates.append(Candidate(**own))
        own = kept.pop("reached")
        reached = Reached(**own | {"texts": tuple(own["texts"])}) if own else None
        return cls(
            **kept | {"candidates": tuple(candidates), "techniques": tuple(kept["techniques"]), "reached": reached}
        )


def write(day: Day, folder: Path) -> None:
    """Write the plan to `folder`/plan.json, atomically."""
    text = json.dumps(day.to_json(), indent=2) + "\n"
    write_atomically(folder / "plan.json", lambda name: Path(name).write_text(text, encoding="utf-8"))


def read(folder: Path) -> Day:
    """The plan in a folder. Raises ValueError if there is none."""
    try:
        return Day.from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{str(folder)!r} has no plan: give a folder that `trainpace day` has made") from error


def write_curve(points: Sequence[Point], folder: Path) -> None:
    """Write the whole curve to `folder`/curve.parquet, one row per point, atomically."""
    temporary = folder / ".curve.parquet"
    pq.write_table(pa.Table.from_pylist([dataclasses.asdict(point) for point in points]), temporary)
    os.replace(temporary, folder / "curve.parquet")
