"""The metrics: figures derived from a record. `Figures` lists them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.record import Machine, Record
from results import pace
from results.pace import step_time_s

Derive = Callable[[Record, Machine], float | None]
"""Derives one figure of a repetition; None where it is unknown."""


class Form(StrEnum):
    """How a figure is formatted: by the function of that name in reports/wording/quantity.py."""

    DURATION = "duration"
    ENERGY = "energy"
    MEMORY = "memory"
    PERCENT = "percent"
    RATE = "rate"
    SHARE = "share"
    SIGNIFICANT = "significant"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a figure is derived, formatted and named. `unknown` is the default reason why it may be unknown.

    A median below `least`, if given, is unknown: single repetitions may lie below it by chance.
    """

    derive: Derive
    form: Form
    title: str
    caption: str
    unknown: str
    least: float | None = None

    def median(self, records: Iterable[Record], machine: Machine) -> float | None:
        """The median over the repetitions in which the figure is known."""
        known = [value for record in records if (value := self.derive(record, machine)) is not None]
        found = statistics.median(known) if known else None
        return None if found is None or (self.least is not None and found < self.least) else found


def metric(
    derive: Derive, form: Form, title: str, caption: str, unknown: str = "not recorded", *, least: float | None = None
) -> Any:
    """A field of Figures."""
    made = Metric(derive=derive, form=form, title=title, caption=caption, unknown=unknown, least=least)
    return dataclasses.field(metadata={"metric": made})


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


OTHER_FLOPS = {"trained parameters", "objective", "data order"}
"""Changes that make a step compute more or less than the baseline's: frozen parameters have no gradients, and in
another order samples can have other lengths."""


def _share_pct(record: Record, what: str) -> float | None:
    share = pace.share(record, what)
    return None if share is None else 100 * share


def _flops_share(record: Record, peaks: dict[str, float]) -> float | None:
    """Model FLOP utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B): the FLOP of one update of the
    unmodified model, over the step time, the devices and the peak of one device in the arm's number format."""
    time_s, peak = step_time_s(record), peaks.get(record.compute or "")
    if record.step_flops is None or time_s is None or not peak:
        return None
    if why_no_flops(record):
        return None
    devices = record.world_size if record.device == "cuda" else 1
    return record.step_flops / time_s / (peak * devices)


def why_no_flops(record: Record) -> str | None:
    """Why the FLOP of the arm's step are unknown, in words; None if known. They are counted for the whole model on full
    batches."""
    if record.step_flops is None:
        return "the FLOP of one update could not be counted"
    if record.certificate is not None and record.certificate.parameters != record.parameters:
        return "the FLOP were counted for the model before its size was changed"
    if any(samples != record.batch for samples in record.measurement.round_samples):
        return "the FLOP were counted for a full batch, and not every step has one"
    other = [change for change in record.changes if change in OTHER_FLOPS]
    return f"the FLOP were counted without the technique's other {' and '.join(other)}" if other else None


def _energy_per_token(record: Record) -> float | None:
    tokens, energy_j = record.measurement.sustained_tokens, record.measurement.sustained_energy_j
    return energy_j / tokens if tokens and energy_j is not None else None


def _cudagraph_skips(record: Record) -> int | None:
    """None except on a GPU: elsewhere there are no CUDA graphs to skip."""
    return record.certificate.cudagraph_skips if record.certificate and record.device == "cuda" else None


def final_loss(record: Record) -> float | None:
    """The last of the replayed first losses: every arm replays the same updates on the same data."""
    losses = record.certificate.first_losses if record.certificate else None
    return losses[-1] if losses else None


def _certified(name: str) -> Derive:
    return lambda record, _: getattr(record.certificate, name) if record.certificate else None


def _is_cold(record: Record) -> bool:
    """Whether compiled code, if any, was not found in a cache: otherwise the cost of compilation was not measured."""
    return record.measurement.compile_cache in (None, "cold")


def _cold(name: str) -> Derive:
    return lambda record, _: getattr(record.measurement, name) if _is_cold(record) else None


def _start_s(record: Record) -> float | None:
    """The time from starting the arm until it is warm, less what its steps until then would have taken at its pace."""
    measured, steady_s = record.measurement, step_time_s(record)
    if measured.ready_s is None or steady_s is None or not _is_cold(record):
        return None
    steps = measured.warmup_step_times_s
    return measured.ready_s + sum(steps[1:]) - len(steps) * steady_s


NOT_PROFILED = "so far a step is profiled only in a replay on a CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The metrics of an arm: each is the median over its repetitions, None where it is unknown."""

    tokens_per_s: float | None = metric(
        lambda record, _: pace.rate_per_s(record, "tokens"), Form.RATE, "Tokens", "tokens a second, over the same steps"
    )
    samples_per_s: float | None = metric(
        lambda record, _: pace.rate_per_s(record, "samples"),
        Form.RATE,
        "Samples",
        "samples a second, over the same steps",
    )
    peak_memory_bytes: float | None = metric(
        lambda record, _: record.measurement.peak_memory_bytes,
        Form.MEMORY,
        "Peak memory",
        "the allocator's peak on a GPU, growth of the arm's own memory on a CPU",
    )
    allocated_peak_bytes: float | None = metric(
        lambda record, _: record.measurement.allocated_peak_bytes,
        Form.MEMORY,
        "Allocated",
        "the most at once, in tensors; on a CPU in a replay",
        unknown="on a CPU only a replay shows it, and not for compiled code",
    )
    predicted_peak_bytes: float | None = metric(
        lambda record, _: record.predicted_peak_bytes,
        Form.MEMORY,
        "Predicted",
        "the most allocated at once, as predicted before anything ran",
        unknown="it could not be predicted",
    )
    first_step_s: float | None = metric(
        _cold("first_step_s"), Form.DURATION, "First step", "the first step alone, with any compilation in it"
    )
    ready_s: float | None = metric(
        lambda record, _: record.measurement.ready_s,
        Form.DURATION,
        "Ready after",
        "from starting the arm to the end of its first step",
    )
    start_s: float | None = metric(
        lambda record, _: _start_s(record),
        Form.DURATION,
        "Start",
        "time until it is warm, less what the same steps take when warm",
        unknown="no pace was measured, or steps became slower later, or compiled code was found in a cache",
        # If steps became slower after the warm-up, their pace says nothing about those before.
        least=0.0,
    )
    compile_s: float | None = metric(
        _cold("compile_s"), Form.DURATION, "Compilation", "as the compiler counts it", unknown="nothing was compiled"
    )
    cpu_util_pct: float | None = metric(
        lambda record, _: mean(record.measurement.sample_cpu_pct),
        Form.PERCENT,
        "CPU",
        "use by the arm's processes; 100 % is all cores",
    )
    gpu_util_pct: float | None = metric(
        lambda record, _: mean(record.measurement.sample_gpu_util_pct),
        Form.PERCENT,
        "GPU",
        "mean utilisation, as NVML samples it",
    )
    energy_j_per_token: float | None = metric(
        lambda record, _: _energy_per_token(record),
        Form.ENERGY,
        "Energy per token",
        "from the GPU's energy counter",
    )
    mfu: float | None = metric(
        lambda record, machine: _flops_share(record, machine.published_flops_per_s),
        Form.SHARE,
        "MFU",
        "model FLOP utilisation: share of the chip's published peak",
    )
    matmul_share: float | None = metric(
        lambda record, machine: _flops_share(record, machine.matmul_flops_per_s),
        Form.SHARE,
        "Of matmul peak",
        "share of the peak measured on this machine",
    )
    data_wait_pct: float | None = metric(
        lambda record, _: _share_pct(record, "data_wait_s"), Form.PERCENT, "Data wait", "share of the steps' time"
    )
    copy_pct: float | None = metric(
        lambda record, _: _share_pct(record, "copy_s"),
        Form.PERCENT,
        "Copy",
        "of batches to the device, share of the steps' time",
    )
    forward_share: float | None = metric(
        _certified("forward_share"), Form.SHARE, "Forward", "share of one profiled step", unknown=NOT_PROFILED
    )
    backward_share: float | None = metric(
        _certified("backward_share"),
        Form.SHARE,
        "Backward",
        "share of one profiled step",
        unknown=NOT_PROFILED,
    )
    optimizer_share: float | None = metric(
        _certified("optimizer_share"),
        Form.SHARE,
        "Optimizer",
        "share of one profiled step",
        unknown=NOT_PROFILED,
    )
    exposed_communication_share: float | None = metric(
        _certified("exposed_communication_share"),
        Form.SHARE,
        "Exposed communication",
        "share of a step that no computation hides",
    )
    slowest_rank: float | None = metric(
        _certified("slowest_rank"), Form.WHOLE, "Slowest rank", "the one that the others wait for"
    )
    cuda_graph_launches: float | None = metric(
        _certified("cuda_graph_launches"), Form.WHOLE, "CUDA graphs", "launched in the last replayed step"
    )
    cudagraph_skips: float | None = metric(
        lambda record, _: _cudagraph_skips(record),
        Form.WHOLE,
        "CUDA graphs skipped",
        "given up by torch.compile, their kernels launched one by one",
    )
    accuracy: float | None = metric(
        _certified("accuracy"),
        Form.SHARE,
        "Accuracy",
        "on held-out text after the replayed updates",
        unknown="measured in the phase finetune only",
    )
    f1: float | None = metric(
        _certified("f1"),
        Form.SIGNIFICANT,
        "F1",
        "mean over labels, on held-out text",
        unknown="measured in the phase finetune only",
    )
    final_loss: float | None = metric(
        lambda record, _: final_loss(record),
        Form.SIGNIFICANT,
        "Loss",
        "at the last replayed update, without dropout",
    )


METRICS: dict[str, Metric] = {item.name: item.metadata["metric"] for item in dataclasses.fields(Figures)}
