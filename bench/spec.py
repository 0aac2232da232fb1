"""Trial and Plan: plain data that says what is to be measured. Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bench import plain

BASELINE = "fp32"
"""The label of the baseline arm: the workload with no technique at all."""


GPU_TURN_STEPS = 4
"""The fewest steps in a turn on a GPU. Shorter turns, waited for at both ends, would hide what a technique gains by
letting the host run ahead."""

GPU_SUSTAINED_S = 0.5
"""Seconds of the window for telemetry on a GPU. Its driver reports means over a fraction of a second, so no other arm
may take steps in that window."""

GPU_ENERGY_S = 2.5
"""Seconds of a window whose energy counts. The counter is updated some ten times a second; with too few updates the
energy is left unknown (harness.telemetry.sampler)."""


class Phase(StrEnum):
    """What is done with the model: it is trained from scratch, trained on from a checkpoint as a classifier, or only
    run."""

    PRETRAIN = "pretrain"
    FINETUNE = "finetune"
    INFER = "infer"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """A model, its data and its shape. `batch` is in samples per optimizer update over all ranks, `sequence` in tokens.

    None stands for the model's default. `corpus` is a path or anything else that bench.corpus reads; None is the
    standard library's own source code. In a table, `text_column` holds the text and `label_column` the labels for a
    classifier.
    """

    model: str
    phase: Phase = Phase.PRETRAIN
    batch: int | None = None
    sequence: int | None = None
    corpus: str | None = None
    text_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "sequence"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} is not a positive whole number: give 1 or more")

    @property
    def name(self) -> str:
        """What distinguishes this workload within a plan: the model, and the phase unless it is pretraining."""
        return self.model if self.phase is Phase.PRETRAIN else f"{self.model} {self.phase}"

    @property
    def source(self) -> tuple[str | None, str | None, str | None]:
        """Where the text comes from: the arguments of bench.corpus.open_corpus."""
        return self.corpus, self.text_column, self.label_column

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WorkloadSpec:
        """The inverse of `dataclasses.asdict`. Raises ValueError for anything else."""
        return plain.read(cls, data, "the workload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One arm to be measured: a workload under a composition of techniques (empty: the baseline).

    `copy` distinguishes identical arms, such as the baseline's several processes in a heat.
    """

    workload: WorkloadSpec
    techniques: tuple[str, ...] = ()
    device: str = "cpu"
    copy: int = 0

    @property
    def label(self) -> str:
        return "+".join(self.techniques) or BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How long each phase of a repetition lasts. Every phase is limited in seconds and has a least number of steps.

    A turn starts with steps on cold caches, which are not counted, and then counts steps for `turn_s`, at least
    `turn_steps`. An arm takes turns until it has `rounds_s` of counted steps, at least `rounds_min` and at most
    `rounds` turns. Disturbances are looked for every `watch_s`, and disturbed rounds are repeated, up to a `spare`
    share of all rounds.

    At most `heat_arms` arms are alive at once, of which `baselines` are the baseline (0: the square root of the number
    of rivals); a larger heat is split into parts, each with the baseline. `sustained_s` is a window for telemetry
    before the rounds (0: no window; telemetry is read before and after each turn).

    `certify_steps` updates are replayed for the certificate, or `finetune_steps` if a classifier is then scored. As
    many more are replayed as fit into `certify_s`, but no more than were timed.
    """

    warmup_s: float = 1.5
    warmup_min_steps: int = 6
    warmup_max_steps: int = 200
    sustained_s: float = 0.0
    rounds: int = 30
    rounds_min: int = 3
    rounds_s: float = 1.0
    turn_s: float = 0.1
    turn_steps: int = 2
    pause_s: float = 0.010
    watch_s: float = 2.0
    spare: float = 0.5
    heat_arms: int = 24
    baselines: int = 0
    certify_steps: int = 3
    certify_s: float = 0.0
    finetune_steps: int = 40
    sample_interval_s: float = 0.1
    timeout_s: float = 180.0
    telemetry: bool = True

    def __post_init__(self) -> None:
        counts = ("warmup_min_steps", "rounds_min", "turn_steps", "heat_arms", "certify_steps", "finetune_steps")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"protocol {name} {getattr(self, name)} is too small: give 1 or more")
        for name in ("sample_interval_s", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"protocol {name} {getattr(self, name)} is not positive: give seconds above 0")

    def on(self, device: str) -> Protocol:
        """This protocol with the turns and the window for telemetry that suit the device."""
        if device != "cuda":
            return self
        return dataclasses.replace(
            self,
            turn_steps=max(self.turn_steps, GPU_TURN_STEPS),
            sustained_s=max(self.sustained_s, GPU_SUSTAINED_S),
        )

    def with_energy(self, device: str) -> Protocol:
        """This protocol on the device, with a window in which the energy counter is updated often enough to be read."""
        fitting = self.on(device)
        return fitting if device != "cuda" else dataclasses.replace(fitting, sustained_s=GPU_ENERGY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Workloads times compositions, and how much care to spend on them.

    Every workload is one heat: the baseline and every composition. `repetitions` is the least number of repetitions;
    more follow while `budget_s` allows (seconds of wall time for the whole run; None: no more than `repetitions`). In a
    plan that `narrows`, workloads are the sizes of one family, smallest first, and only the sizes around the point
    where a technique is predicted to start paying off are measured.
    """

    name: str
    workloads: tuple[WorkloadSpec, ...]
    compositions: tuple[tuple[str, ...], ...]
    device: str = "cpu"
    repetitions: int = 3
    budget_s: float | None = None
    seed: int = 0
    narrows: bool = False
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
        """The inverse of `to_json`. Raises ValueError for anything else."""
        return plain.read(cls, data, "the plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What a user asks for in place of a plan's own settings; what is None or empty stays the plan's.

    The name of a family in `models` stands for all of its sizes that can be trained here.
    """

    models: tuple[str, ...] = ()
    compositions: tuple[tuple[str, ...], ...] = ()
    phase: Phase | None = None
    batch: int | None = None
    sequence: int | None = None
    corpus: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    repetitions: int | None = None
    budget_s: float | None = None

    def over(self, spec: WorkloadSpec, techniques: tuple[str, ...]) -> Overrides:
        """These overrides on top of a workload and a composition that were asked for in another way."""
        shaped = self.shaped(spec)
        names = ("phase", "batch", "sequence", "corpus", "text_column", "label_column")
        return dataclasses.replace(
            self,
            models=self.models or (spec.model,),
            compositions=(*self.compositions, techniques),
            **{name: getattr(shaped, name) for name in names},
        )

    def shaped(self, spec: WorkloadSpec) -> WorkloadSpec:
        """The workload with the phase, shape and data that were asked for."""
        names = ("phase", "batch", "sequence", "corpus", "text_column", "label_column")
        return dataclasses.replace(spec, **{name: value for name in names if (value := getattr(self, name))})


def parse_composition(text: str) -> tuple[str, ...]:
    """From `"compile+amp_bf16"` to `("compile", "amp_bf16")`. The baseline's own name adds nothing."""
    names = tuple(part.strip() for part in text.split("+"))
    if not all(names):
        raise ValueError(f"technique {text!r} has an empty part: write names joined by '+', as in amp_bf16+compile")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"technique {text!r} names {', '.join(repeated)} twice: name each once")
    return tuple(name for name in names if name != BASELINE)
