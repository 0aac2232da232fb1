"""The table of metrics: what is derived from a record, in which unit, and which way is better."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.record import Machine, Record
from results import pace
from results.pace import step_time_s

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure a repetition. `derive` returns None where it is not known; a comparison shows the median over
    repetitions."""

    name: str
    unit: str
    better: Better
    caption: str
    derive: Callable[[Record, Machine], float | None]


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


OTHER_FLOPS = {"trained parameters", "objective", "data order"}
"""Changes under which a step computes more or less than the baseline's: what is frozen has no gradients, and samples of
another order can be of other lengths."""


def _share_pct(record: Record, what: str) -> float | None:
    share = pace.share(record, what)
    return None if share is None else 100 * share


def _flops_share(record: Record, peaks: dict[str, float]) -> float | None:
    """Model FLOP utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B): FLOP of one update of the
    unmodified model, over step time, ranks and the peak of one device in the arm's number format."""
    time_s, peak = step_time_s(record), peaks.get(record.compute or "")
    if record.step_flops is None or time_s is None or not peak:
        return None
    if why_no_flops(record):
        return None
    devices = record.world_size if record.device == "cuda" else 1
    return record.step_flops / time_s / (peak * devices)


def why_no_flops(record: Record) -> str | None:
    """Why the FLOP of the arm's step are unknown, in words: they were counted for the whole model on full batches."""
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
    """On a GPU: elsewhere there are no such graphs to give up."""
    return record.certificate.cudagraph_skips if record.certificate and record.device == "cuda" else None


def final_loss(record: Record) -> float | None:
    """The last of the replayed first losses: the same updates on the same data in every arm."""
    losses = record.certificate.first_losses if record.certificate else None
    return losses[-1] if losses else None


METRICS: tuple[Metric, ...] = (
    Metric(
        name="tokens_per_s",
        unit="1/s",
        better="higher",
        caption="tokens a second, padding left out: what a step handles, over the step time",
        derive=lambda record, _: pace.rate_per_s(record, "tokens"),
    ),
    Metric(
        name="samples_per_s",
        unit="1/s",
        better="higher",
        caption="samples a second: what a step handles, over the step time",
        derive=lambda record, _: pace.rate_per_s(record, "samples"),
    ),
    Metric(
        name="peak_memory_bytes",
        unit="B",
        better="lower",
        caption="peak memory: the allocator's on a GPU, the growth of the process's own memory on a CPU",
        derive=lambda record, _: record.measurement.peak_memory_bytes,
    ),
    Metric(
        name="gpu_util_pct",
        unit="%",
        better="higher",
        caption="mean GPU utilisation over the sustained window, as NVML samples it",
        derive=lambda record, _: mean(record.measurement.sample_gpu_util_pct),
    ),
    Metric(
        name="cpu_util_pct",
        unit="%",
        better="neither",
        caption="mean CPU use of the arm's processes while it steps; 100 % is all cores",
        derive=lambda record, _: mean(record.measurement.sample_cpu_pct),
    ),
    Metric(
        name="energy_j_per_token",
        unit="J",
        better="lower",
        caption="GPU energy a token over the sustained window, from the chip's energy counter",
        derive=lambda record, _: _energy_per_token(record),
    ),
    Metric(
        name="mfu",
        unit="",
        better="higher",
        caption="model FLOP utilisation: share of the chip's published peak",
        derive=lambda record, machine: _flops_share(record, machine.published_flops_per_s),
    ),
    Metric(
        name="matmul_share",
        unit="",
        better="higher",
        caption="share of the matrix product peak that was measured on this machine",
        derive=lambda record, machine: _flops_share(record, machine.matmul_flops_per_s),
    ),
    Metric(
        name="final_loss",
        unit="",
        better="lower",
        caption="loss at the last replayed update (same updates and data in every arm, no dropout)",
        derive=lambda record, _: final_loss(record),
    ),
    Metric(
        name="exposed_communication_share",
        unit="",
        better="lower",
        caption="share of a replayed step in which ranks exchange data and nothing is computed, mean over ranks",
        derive=lambda record, _: record.certificate.exposed_communication_share if record.certificate else None,
    ),
    Metric(
        name="slowest_rank",
        unit="",
        better="neither",
        caption="the rank that the others wait for, by the least exposed communication",
        derive=lambda record, _: record.certificate.slowest_rank if record.certificate else None,
    ),
    Metric(
        name="cuda_graph_launches",
        unit="",
        better="neither",
        caption="CUDA graphs launched in the last replayed step",
        derive=lambda record, _: record.certificate.cuda_graph_launches if record.certificate else None,
    ),
    Metric(
        name="cudagraph_skips",
        unit="",
        better="lower",
        caption="CUDA graphs that torch.compile was asked for and gave up: their kernels were launched one by one",
        derive=lambda record, _: _cudagraph_skips(record),
    ),
    Metric(
        name="accuracy",
        unit="",
        better="higher",
        caption="share of held-out samples that the fine-tuned classifier gets right after the replayed updates",
        derive=lambda record, _: record.certificate.accuracy if record.certificate else None,
    ),
    Metric(
        name="f1",
        unit="",
        better="higher",
        caption="F1 of the same, the mean over labels",
        derive=lambda record, _: record.certificate.f1 if record.certificate else None,
    ),
    Metric(
        name="data_wait_pct",
        unit="%",
        better="lower",
        caption="share of the counted steps' time in which the training thread waited for the next batch",
        derive=lambda record, _: _share_pct(record, "data_wait_s"),
    ),
    Metric(
        name="copy_pct",
        unit="%",
        better="lower",
        caption="share of the counted steps' time in which the training thread copied batches to the device; from "
        "pageable memory a copy waits for the step before",
        derive=lambda record, _: _share_pct(record, "copy_s"),
    ),
)
"""What `compare` derives besides step time and speed-up, which carry intervals."""
