"""Trial and Plan: the plain data that says what is to be measured. Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

BASELINE = "fp32"
"""The label of the baseline arm: the workload with no technique at all."""


GPU_TURN_STEPS = 4
"""A turn of one step, waited for at both ends, would hide what a technique gains by letting the host run ahead."""


class Phase(StrEnum):
    """What is done with the model: trained from scratch, trained on from a checkpoint as a classifier, or only run."""

    PRETRAIN = "pretrain"
    FINETUNE = "finetune"
    INFER = "infer"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """Which model, data and shape. `batch` is samples per optimizer update over all ranks; `sequence` is in tokens.

    `None` stands for the default of the model. `corpus` is a path, or None for the standard library's own sources.
    """

    model: str
    phase: Phase = Phase.PRETRAIN
    batch: int | None = None
    sequence: int | None = None
    corpus: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "sequence"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} is not a positive whole number: give 1 or more")

    @property
    def name(self) -> str:
        """What tells this workload from the others of a plan: the model, and the phase unless it is pretraining."""
        return self.model if self.phase is Phase.PRETRAIN else f"{self.model} {self.phase}"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WorkloadSpec:
        """The inverse of `dataclasses.asdict`, with the phase as its text. Raises ValueError for an unknown phase."""
        return cls(**data | {"phase": Phase(data["phase"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One arm to be measured: a workload under a composition of techniques (empty: the baseline)."""

    workload: WorkloadSpec
    techniques: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def label(self) -> str:
        return "+".join(self.techniques) or BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How long each phase of a repetition lasts. Every phase is bounded in seconds, with a least number of steps.

    At most `heat_arms` arms are alive at once; a larger heat is split into parts, each with the baseline.
    `certify_steps` updates are replayed for the certificate, `finetune_steps` where a classifier is then scored; in
    `certify_s` as many more as fit, but no more than were timed.
    """

    warmup_s: float = 1.5
    warmup_min_steps: int = 6
    warmup_max_steps: int = 200
    sustained_s: float = 0.5
    sustained_min_steps: int = 3
    rounds: int = 12
    rounds_min: int = 3
    rounds_s: float = 1.0
    round_steps: int = 1
    pause_s: float = 0.010
    heat_arms: int = 24
    certify_steps: int = 3
    certify_s: float = 0.0
    finetune_steps: int = 40
    sample_interval_s: float = 0.1
    timeout_s: float = 180.0
    telemetry: bool = True

    def __post_init__(self) -> None:
        counts = ("warmup_min_steps", "sustained_min_steps", "rounds_min", "round_steps", "heat_arms")
        for name in (*counts, "certify_steps", "finetune_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"protocol {name} {getattr(self, name)} is too small: give 1 or more")
        for name in ("sample_interval_s", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"protocol {name} {getattr(self, name)} is not positive: give seconds above 0")

    def on(self, device: str) -> Protocol:
        """This protocol in turns that suit the device."""
        least = GPU_TURN_STEPS if device == "cuda" else 1
        return dataclasses.replace(self, round_steps=max(self.round_steps, least))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Workloads times compositions, and how much care to spend on them.

    Every workload is one heat: the baseline and every composition. `repetitions` is the least number of repetitions;
    more follow while `budget_s` (seconds of wall time for the whole run, None: no more than `repetitions`) allows.
    """

    name: str
    workloads: tuple[WorkloadSpec, ...]
    compositions: tuple[tuple[str, ...], ...]
    device: str = "cpu"
    repetitions: int = 3
    budget_s: float | None = None
    seed: int = 0
    protocol: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        if not self.workloads:
            raise ValueError(f"plan {self.name!r} has no workload: name at least one model")
        if self.repetitions < 1:
            raise ValueError(f"repetitions {self.repetitions} is not a positive whole number: give 1 or more")
        if self.budget_s is not None and self.budget_s <= 0:
            raise ValueError(f"budget {self.budget_s} is not positive: give seconds above 0")

    def trials(self, workload: WorkloadSpec) -> list[Trial]:
        """The arms of one heat, baseline first."""
        techniques = ((), *(names for names in self.compositions if names))
        return [Trial(workload=workload, techniques=names, device=self.device) for names in techniques]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The inverse of `to_json`. Raises TypeError on unknown or missing fields."""
        rest = {key: value for key, value in data.items() if key not in ("workloads", "compositions", "protocol")}
        return cls(
            workloads=tuple(WorkloadSpec.from_json(item) for item in data["workloads"]),
            compositions=tuple(tuple(names) for names in data["compositions"]),
            protocol=Protocol(**data["protocol"]),
            **rest,
        )


def parse_composition(text: str) -> tuple[str, ...]:
    """`"compile+amp_bf16"` to `("compile", "amp_bf16")`; the baseline's own name adds nothing."""
    names = tuple(part.strip() for part in text.split("+"))
    if not all(names):
        raise ValueError(f"technique {text!r} has an empty part: write names joined by '+', as in amp_bf16+compile")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"technique {text!r} names {', '.join(repeated)} twice: name each once")
    return tuple(name for name in names if name != BASELINE)
