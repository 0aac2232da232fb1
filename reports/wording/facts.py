"""The machine and the workloads as lists of facts; unknown ones have a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Machine, Record
from reports.wording import quantity

_FORMATS = {"tf32": "TensorFloat-32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and its value as text; `source` says where a figure comes from, or why it is unknown."""

    name: str
    text: str
    source: str = ""


def machine_facts(machine: Machine) -> list[Fact]:
    """Everything in `machine`. What is None or empty is unknown, with the reason that the machine gives."""
    return [*_hardware(machine), *_peaks(machine), *_software(machine)]


def _fact(machine: Machine, name: str, text: str | None, *reasons: str) -> Fact:
    """A fact, or `unknown` with the machine's first reason under one of the names in `reasons`."""
    why = next((machine.unknown[key] for key in reasons if key in machine.unknown), None)
    if text is not None:
        # Part of it may be unknown.
        return Fact(name=name, text=text, source=why or "")
    return Fact(name=name, text=quantity.UNKNOWN, source=why or "not recorded")


def _hardware(machine: Machine) -> list[Fact]:
    size = machine.gpu_memory_bytes
    capability = ".".join(map(str, machine.capability)) if machine.capability else None
    return [
        Fact(name="Device", text=f"{machine.device}: {machine.device_name}"),
        Fact(name="Processor", text=f"{machine.cpu}, {machine.cpu_cores} cores, {machine.threads} threads used"),
        Fact(name="Memory", text=quantity.memory(machine.memory_bytes)),
        Fact(name="GPUs", text=str(machine.gpus) if machine.gpus else "none used"),
        _fact(machine, "GPU memory", None if size is None else quantity.memory(size), "gpu_memory_bytes", "gpu"),
        _fact(machine, "Compute capability", capability, "capability", "gpu"),
        _fact(machine, "Driver", machine.driver, "driver", "gpu"),
        _fact(machine, "CUDA of PyTorch", machine.cuda, "cuda", "gpu"),
        Fact(name="Machine id", text=machine.machine_id),
    ]


def _peaks(machine: Machine) -> list[Fact]:
    measured = [
        Fact(
            name=f"Measured peak, {_FORMATS.get(name, name)}", text=quantity.flops(peak), source="matrix products here"
        )
        for name, peak in machine.matmul_flops_per_s.items()
    ]
    published = [
        Fact(
            name=f"Published peak, {_FORMATS.get(name, name)}",
            text=quantity.flops(peak),
            source=machine.published_source or "source not recorded",
        )
        for name, peak in machine.published_flops_per_s.items()
    ]
    return [
        *(measured or [_fact(machine, "Measured peaks", None, "matmul_flops_per_s", "matmul_share")]),
        *(published or [_fact(machine, "Published peaks", None, "published_flops_per_s", "mfu")]),
    ]


def _software(machine: Machine) -> list[Fact]:
    state = {True: "with uncommitted changes", False: "clean", None: "whether it was clean is unknown"}
    commit = f"{machine.git_commit[:12]}, {state[machine.git_dirty]}" if machine.git_commit else None
    shown = {"gpu", "mfu", "git_commit", "matmul_share", *Machine.__dataclass_fields__}
    return [
        Fact(name="System", text=machine.system),
        Fact(name="Python", text=machine.python),
        Fact(name="Packages", text=", ".join(f"{name} {version}" for name, version in machine.packages.items())),
        _fact(machine, "Git commit", commit, "git_commit"),
        *(
            Fact(name=name, text=quantity.UNKNOWN, source=why)
            for name, why in machine.unknown.items()
            if name not in shown
        ),
    ]


def workload_facts(records: Sequence[Record]) -> str:
    """The shape of one workload as a phrase, from its records."""
    first = records[0]
    tokens = f" of {first.sequence} tokens" if first.sequence else ""
    parameters = next((item.parameters for item in records if item.parameters), None)
    size = f", {quantity.count(parameters)} parameters" if parameters else ""
    return f"{first.batch} samples{tokens} an update{size}"
