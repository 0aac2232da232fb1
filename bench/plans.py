"""Named plans: Python functions that return a Plan. The first line of the docstring is the caption."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from bench.spec import Plan, Protocol, WorkloadSpec
from bench.workload import families, parameter_count

CUSTOM = "-custom"
"""At the end of the name of a plan whose models or techniques the user named."""

TRAINING_BYTES_PER_PARAMETER = 16
"""float32 weights, gradients and two AdamW moments."""


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
    "fp8",
    "int8_mixed_precision",
    "prune_heads_50",
    "prune_magnitude_50",
    "pure_bf16",
    "qat_int8",
    "sgd_momentum",
    "tf32",
)
"""What people ask about first."""


def _singly(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in names)


def _workloads(*models: str) -> tuple[WorkloadSpec, ...]:
    return tuple(WorkloadSpec(model=model) for model in models)


def smoke(device: str, memory_bytes: int) -> Plan:
    """A minute's proof that everything works here: one nano model, four arms, three repetitions."""
    return Plan(
        name="smoke",
        workloads=_workloads("gpt2/nano"),
        compositions=(("accumulate_4",), ("adamw_fused",), ("sgd_momentum",)),
        device=device,
        repetitions=3,
        protocol=Protocol(warmup_s=0.8, sustained_s=0.3, rounds_s=0.5, timeout_s=60),
    )


def quick(device: str, memory_bytes: int) -> Plan:
    """Ten minutes without a GPU: two small sizes of each family under the common techniques."""
    return Plan(
        name="quick",
        workloads=_workloads("gpt2/nano", "gpt2/tiny", "bert/tiny", "bert/mini"),
        compositions=_singly(COMMON),
        device=device,
        repetitions=3,
        budget_s=570,
        protocol=Protocol(warmup_s=0.6, sustained_s=0.25, rounds_s=0.8, rounds=8, round_steps=2),
    )


def full(device: str, memory_bytes: int) -> Plan:
    """The published sizes, up to GPT-2 xl (1558M) as the memory allows, under the common techniques."""
    models = ("gpt2/small", "gpt2/medium", "gpt2/large", "gpt2/xl", "bert/base", "bert/large")
    fitting = [model for model in models if _fits(model, memory_bytes)]
    return Plan(
        name="full",
        workloads=_workloads(*(fitting or models[:1])),
        compositions=_singly(COMMON),
        device=device,
        repetitions=3,
        protocol=Protocol(warmup_s=3.0, sustained_s=2.0, rounds_s=3.0, rounds=24, timeout_s=600),
    )


def _fits(model: str, memory_bytes: int) -> bool:
    """Whether the baseline and one rival can train side by side, with as much again for activations."""
    name, _, size = model.partition("/")
    family = families()[name]
    return 3 * TRAINING_BYTES_PER_PARAMETER * parameter_count(family, family.sizes[size]) < memory_bytes


PlanFunction = Callable[[str, int], Plan]
"""From the device's kind and its memory in bytes to the plan."""

PLANS: dict[str, PlanFunction] = {"smoke": smoke, "quick": quick, "full": full}


def customise(
    plan: Plan,
    *,
    models: tuple[str, ...] = (),
    compositions: tuple[tuple[str, ...], ...] = (),
    batch: int | None = None,
    sequence: int | None = None,
    corpus: str | None = None,
    repetitions: int | None = None,
    budget_s: float | None = None,
) -> Plan:
    """The plan with what the user asked for in place of its own; what was left out stays."""
    specs = _workloads(*dict.fromkeys(models)) if models else plan.workloads
    shaped = tuple(dataclasses.replace(spec, batch=batch, sequence=sequence, corpus=corpus) for spec in specs)
    return dataclasses.replace(
        plan,
        name=plan.name if not (models or compositions) else f"{plan.name}{CUSTOM}",
        workloads=shaped,
        compositions=tuple(dict.fromkeys(compositions)) or plan.compositions,
        repetitions=repetitions or plan.repetitions,
        # Naming repetitions without a budget means just those.
        budget_s=budget_s if budget_s is not None or repetitions is not None else plan.budget_s,
    )


def known_plan(name: str) -> PlanFunction:
    """The function of the plan of this name. Raises ValueError for an unknown one."""
    if name not in PLANS:
        raise ValueError(f"plan {name!r} is unknown: give one of {', '.join(PLANS)}")
    return PLANS[name]
