"""Named plans: Python functions that return a Plan. The first line of the docstring is the caption.

This module exports all that a plan of one's own needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from bench import plugins
from bench.host import RANKS, Host
from bench.registry import techniques
from bench.spec import Overrides, Phase, Plan, Protocol, WorkloadSpec
from bench.workload import families, parameter_count

__all__ = [
    "CUSTOM",
    "SAVING",
    "SAVING_MOST",
    "Host",
    "Phase",
    "Plan",
    "PlanFunction",
    "Protocol",
    "WorkloadSpec",
    "customise",
    "known_plan",
    "plan",
    "plans",
    "sizes_of",
]

CUSTOM = "-custom"
"""The end of a plan's name if the user named models or techniques."""

CPU_PARAMETERS = 50_000_000
"""Larger models take seconds per step on a CPU: to measure them, the user has to name them."""

PREDICTABLE_PARAMETERS = 200_000_000
"""For larger models, the time of a step on a CPU is not even predicted: that takes seconds per operator."""

SCALED_BATCH = 16
"""Samples per update in the scaling plans, unless there are more ranks."""


COMMON = (
    "accumulate_4",
    "adafactor",
    "adam",
    "adamax",
    "adamw_foreach",
    "adamw_fused",
    "amp_bf16",
    "amp_fp16",
    "checkpoint_activations",
    "compile",
    "ddp_2",
    "fp8_tensorwise",
    "int8_mixed_precision",
    "prune_heads_50",
    "prune_magnitude_50",
    "pure_bf16",
    "qat_int8",
    "sgd_momentum",
    "tf32",
)
"""What people ask about first."""


SAVING_MOST = (
    ("checkpoint_activations",),
    ("amp_bf16", "checkpoint_activations"),
    ("adafactor", "checkpoint_activations", "pure_bf16"),
)
SAVING = (
    ("accumulate_4",),
    ("amp_bf16",),
    ("pure_bf16",),
    ("adafactor",),
    ("adamw_8bit",),
    *SAVING_MOST,
)
"""What makes models fit: SAVING_MOST helps most, for questions about many models; SAVING has more, for those about
few."""

PlanFunction = Callable[[Host], Plan]
"""From what the machine offers to the plan. The first line of the docstring is the caption."""

_PLANS: dict[str, PlanFunction] = {}


def plan(function: PlanFunction) -> PlanFunction:
    """Register a plan under the function's name. Raises ValueError if the name is taken or there is no docstring."""
    name = function.__name__
    if name in _PLANS:
        raise ValueError(f"plan {name!r} is already registered: choose another name")
    if not function.__doc__:
        raise ValueError(f"plan {name!r} has no docstring: its first line is the caption in the list")
    _PLANS[name] = function
    return function


def plans() -> dict[str, PlanFunction]:
    """Every plan by name: those below, and those that plugins have registered."""
    plugins.load_installed()
    return dict(_PLANS)


def _singly(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in names)


def _workloads(*models: str, batch: int | None = None, sequence: int | None = None) -> tuple[WorkloadSpec, ...]:
    return tuple(WorkloadSpec(model=model, batch=batch, sequence=sequence) for model in models)


@plan
def smoke(host: Host) -> Plan:
    """A minute's proof that everything works here: one nano model, four arms, three repetitions."""
    return Plan(
        name="smoke",
        workloads=_workloads("gpt2/nano"),
        compositions=(("accumulate_4",), ("adamw_fused",), ("sgd_momentum",)),
        device=host.device,
        repetitions=3,
        protocol=Protocol(warmup_s=0.8, rounds_s=0.5, timeout_s=60).on(host.device),
    )


@plan
def quick(host: Host) -> Plan:
    """Ten minutes: small sizes of GPT-2 and BERT (on a GPU, their published base sizes) under common techniques."""
    if host.device == "cuda":
        models = _workloads("gpt2/small", "bert/base")
        protocol = Protocol(warmup_s=1.0, rounds_s=0.8, timeout_s=120).on(host.device)
    else:
        models = _workloads("gpt2/nano", "gpt2/tiny", "bert/tiny", "bert/mini")
        protocol = Protocol(warmup_s=0.6, rounds_s=0.6)
    return Plan(
        name="quick",
        workloads=tuple(host.fitting(models)) if host.device == "cuda" else models,
        compositions=_singly(COMMON),
        device=host.device,
        repetitions=3,
        # What comes before the clock starts, texts and tokenizers included, takes longer with the larger vocabularies.
        budget_s=510 if host.device == "cuda" else 570,
        protocol=protocol,
    )


@plan
def full(host: Host) -> Plan:
    """Hours: the published sizes, up to GPT-2 xl (1558M) as far as memory allows, under common techniques."""
    models = _workloads("gpt2/small", "gpt2/medium", "gpt2/large", "gpt2/xl", "bert/base", "bert/large")
    return Plan(
        name="full",
        workloads=tuple(host.fitting(models)),
        compositions=_singly(COMMON),
        device=host.device,
        repetitions=3,
        protocol=Protocol(warmup_s=3.0, sustained_s=2.0, rounds_s=3.0, timeout_s=600).on(host.device),
    )


@plan
def each(host: Host) -> Plan:
    """A quarter of an hour: every technique on one model, to see what works here and what it brings."""
    sizes = ("nano",) if host.device == "cpu" else ("small", "mini", "tiny")
    # A batch that every number of micro-batches divides.
    models = _workloads(*(f"gpt2/{size}" for size in sizes), batch=16)
    protocol = Protocol(warmup_s=0.5, rounds_s=0.5, timeout_s=300)
    return Plan(
        name="each",
        workloads=(host.fitting(models)[0],),
        compositions=_singly(techniques()),
        device=host.device,
        repetitions=2,
        budget_s=840,
        protocol=protocol.on(host.device),
    )


@plan
def crossover(host: Host) -> Plan:
    """One technique over the sizes of a family at one batch and sequence, to find the size from which it pays."""
    (shape,) = _workloads("gpt2/nano", batch=8, sequence=64 if host.device == "cpu" else 512)
    return Plan(
        name="crossover",
        workloads=tuple(sizes_of("gpt2", host, shape, PREDICTABLE_PARAMETERS)),
        narrows=True,
        compositions=(("amp_bf16",),),
        device=host.device,
        repetitions=6,
        protocol=Protocol(warmup_s=1.0, timeout_s=300).on(host.device),
    )


@plan
def strong_scaling(host: Host) -> Plan:
    """The same global batch over 1, 2, 4 ... ranks: how much speed each further device adds."""
    counts = _counts(host)
    # Each rank needs at least one sample.
    return _scaling(host, "strong_scaling", [(f"ddp_{count}",) for count in counts], batch=max(SCALED_BATCH, *counts))


@plan
def weak_scaling(host: Host) -> Plan:
    """The same number of samples per rank over 1, 2, 4 ... ranks: how much throughput each further device adds."""
    compositions = [(f"ddp_{count}", "batch_per_rank") for count in _counts(host)]
    return _scaling(host, "weak_scaling", compositions, batch=SCALED_BATCH)


def _counts(host: Host) -> list[int]:
    return [count for count in RANKS if count <= host.ranks]


def _scaling(host: Host, name: str, compositions: Iterable[tuple[str, ...]], *, batch: int) -> Plan:
    sizes = ("mini",) if host.device == "cpu" else ("small", "mini")
    models = _workloads(*(f"gpt2/{size}" for size in sizes), batch=batch)
    return Plan(
        name=name,
        workloads=(host.fitting(models)[0],),
        compositions=tuple(compositions),
        device=host.device,
        repetitions=6,
        protocol=Protocol().on(host.device),
    )


def sizes_of(name: str, host: Host, shape: WorkloadSpec, most_parameters: int = CPU_PARAMETERS) -> list[WorkloadSpec]:
    """The sizes of a family that are trained here in this shape, smallest first; on a CPU up to `most_parameters`."""
    family = families()[name]
    if host.device == "cuda":
        # Counting would import libraries that start CUDA, and only the arms' processes may use the GPU.
        return host.fitting([dataclasses.replace(shape, model=f"{name}/{size}") for size in family.sizes])
    counts = {size: parameter_count(family, made) for size, made in family.sizes.items()}
    ordered = sorted(counts, key=lambda size: counts[size])
    bearable = [size for size in ordered if counts[size] <= most_parameters]
    return host.fitting([dataclasses.replace(shape, model=f"{name}/{size}") for size in bearable or ordered[:1]])


def customise(plan: Plan, host: Host, overrides: Overrides) -> Plan:
    """The plan with what the user asked for in place of its own settings."""
    shaped = tuple(map(overrides.shaped, plan.workloads))
    if overrides.models:
        # The shape that all of the plan's workloads share is the plan's, whatever the model.
        most = PREDICTABLE_PARAMETERS if plan.narrows else CPU_PARAMETERS
        expanded = [
            spec
            for model in overrides.models
            for spec in (
                sizes_of(model, host, shaped[0], most)
                if model in families()
                else [dataclasses.replace(shaped[0], model=model)]
            )
        ]
        shaped = tuple(dict.fromkeys(expanded))
    is_custom = overrides.models or overrides.compositions or overrides.phase
    # Repetitions without a budget mean exactly that many.
    keeps_budget = overrides.budget_s is None and overrides.repetitions is None
    return dataclasses.replace(
        plan,
        name=f"{plan.name}{CUSTOM}" if is_custom else plan.name,
        workloads=shaped,
        compositions=tuple(dict.fromkeys(overrides.compositions)) or plan.compositions,
        repetitions=overrides.repetitions or plan.repetitions,
        # A user who names sizes wants just those.
        narrows=plan.narrows and len(overrides.models) < 2 and all(model in families() for model in overrides.models),
        budget_s=plan.budget_s if keeps_budget else overrides.budget_s,
    )


def known_plan(name: str) -> PlanFunction:
    """The function of the plan with this name. Raises ValueError if there is none."""
    known = plans()
    if name not in known:
        raise ValueError(f"plan {name!r} is unknown: give one of {', '.join(known)}")
    return known[name]
