"""What a repetition of one arm leaves behind, as plain data. Standard library only.

Times are raw; medians are derived later. A value that is not known is None, and `unknown` says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

SCHEMA_VERSION = 6


class Status(StrEnum):
    """How an arm's repetition ended. Only `ok` is compared and ranked."""

    OK = "ok"
    OOM = "oom"
    UNSUPPORTED = "unsupported"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    DIVERGED = "diverged"
    UNEQUAL_WORK = "unequal_work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where it was measured. Two records are comparable only if their `machine_id` is the same.

    `driver` is the GPU driver's version and the CUDA release that it supports, `cuda` the one that torch was built for.
    `memory_bytes_per_s` is what elementwise additions read and write in `memory`, and within the `caches`. `hosts`
    names all of them where a run has several; all else is then of the one that leads.
    """

    machine_id: str
    device: str
    device_name: str
    gpus: int
    gpu_memory_bytes: int | None
    capability: tuple[int, int] | None
    driver: str | None
    cpu: str
    cpu_cores: int
    threads: int
    memory_bytes: int
    system: str
    python: str
    packages: dict[str, str]
    matmul_flops_per_s: dict[str, float]
    published_flops_per_s: dict[str, float]
    published_source: str | None
    git_commit: str | None
    git_dirty: bool | None
    unknown: dict[str, str]
    cuda: str | None = None
    memory_bytes_per_s: dict[str, float] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)


GPU_FIGURES = "GPU figures"
"""In `Measurement.unknown`, all that NVML tells of a GPU: `sample_gpu_*`, `throttle_reasons`, `sustained_energy_j`."""


@dataclass(slots=True, kw_only=True)
class Measurement:
    """Raw times (one entry a step unless said otherwise) and peaks of one arm in one repetition.

    `ready_s` runs from asking for the arm to the end of its first step. `first_step_s` is that step alone, with any
    compilation in it, and the first of `warmup_step_times_s` too. `losses` has every step's. `round_index` gives the
    round of each entry of `round_step_times_s`: entries of one round are one turn of contiguous steps, with the
    uncounted ones at its beginning (`Record.lead_steps`). On a GPU the step times are device events and
    `round_host_times_s`, one entry a turn, is the host's clock around the same synchronised steps; on a CPU both are
    the host's clock. `*_data_wait_s` is what the training thread waited for the next batch, and `*_copy_s` what it then
    took to copy it to the device: from pageable memory that waits for the step before. A copy in another thread, which
    a technique may make, is neither. `*_samples` and `*_tokens` count what was fed, over all ranks, padding left out;
    tokens are missing where samples are not text. `sustained_*` are of a window of contiguous steps for telemetry,
    where there was one, and `sample_*` were read in it; else between turns, and `sample_t_s` is the time in turns so
    far. `rss_*` add up the processes of the arm; `peak_memory_bytes` is the allocator's peak on a GPU. On a CPU it is
    the growth of the resident set over the freshly forked process, less the pages of files that were mapped on the way
    (libraries, the corpus): how many of those are resident depends on the page cache, not the arm. There
    `allocated_peak_bytes` is what a replay with the arm's dropout had allocated at most, to the byte.
    `throttle_reasons` is empty where the GPU was asked and nothing held it back, and None where it could not be asked.
    `rank_step_times_s` is the median of each rank's own steps in turns, and `rank_hosts` where each rank of an arm is
    that spans hosts. `unknown` has one `note` for each figure that could not be read.
    """

    build_s: float | None = None
    ready_s: float | None = None
    first_step_s: float | None = None
    compile_s: float | None = None
    compile_cache: str | None = None
    warmup_step_times_s: list[float] = field(default_factory=list)
    warmup_steady: bool | None = None
    sustained_s: float | None = None
    sustained_step_times_s: list[float] = field(default_factory=list)
    sustained_data_wait_s: list[float] = field(default_factory=list)
    sustained_copy_s: list[float] = field(default_factory=list)
    sustained_samples: int | None = None
    sustained_tokens: int | None = None
    round_index: list[int] = field(default_factory=list)
    round_step_times_s: list[float] = field(default_factory=list)
    round_host_times_s: list[float] = field(default_factory=list)
    round_samples: list[int] = field(default_factory=list)
    round_tokens: list[int] = field(default_factory=list)
    round_data_wait_s: list[float] = field(default_factory=list)
    round_copy_s: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    allocated_peak_bytes: int | None = None
    reserved_peak_bytes: int | None = None
    rss_start_bytes: int | None = None
    rss_peak_bytes: int | None = None
    rss_file_growth_bytes: int | None = None
    active_s: float = 0.0
    sample_t_s: list[float] = field(default_factory=list)
    sample_rss_bytes: list[float] = field(default_factory=list)
    sample_cpu_pct: list[float] = field(default_factory=list)
    sample_foreign_cpu_pct: list[float] = field(default_factory=list)
    sample_steal_pct: list[float] = field(default_factory=list)
    sample_gpu_util_pct: list[float] = field(default_factory=list)
    sample_gpu_memory_bytes: list[float] = field(default_factory=list)
    sample_gpu_power_w: list[float] = field(default_factory=list)
    sample_gpu_clock_hz: list[float] = field(default_factory=list)
    sample_gpu_temperature_c: list[float] = field(default_factory=list)
    throttle_reasons: list[str] | None = None
    sustained_energy_j: float | None = None
    unknown: list[str] = field(default_factory=list)
    rank_step_times_s: list[float] = field(default_factory=list)
    rank_hosts: list[str] = field(default_factory=list)


def note(figure: str, reason: str) -> str:
    """The entry of `Measurement.unknown` on one of its fields, or on GPU_FIGURES."""
    return f"{figure} {'are' if figure == GPU_FIGURES else 'is'} unknown: {reason}"


def why_unknown(measurement: Measurement, figure: str) -> str | None:
    """The reason that a measurement notes for a field of what NVML tells; None if it notes none."""
    for entry in measurement.unknown:
        for name in (figure, GPU_FIGURES):
            if entry.startswith(note(name, "")):
                return entry.removeprefix(note(name, ""))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkCertificate:
    """What the arm really did. Counts are for one optimizer update over all ranks unless said otherwise.

    `movement_rms` is the root mean square change of a fixed sample of parameters over the timed life. `first_losses`
    comes from a replay of the first updates from the same seed, without dropout, so that it can be compared with the
    baseline's; `samples_per_update` and the tokens are counted there, at the model's own input. `attention_kernels` are
    the fused ones of the last replayed step: none means plain matrix products, and unknown that something was compiled
    and may hide them. `cudagraph_skips` counts how often torch.compile gave up a CUDA graph that it was asked for (on a
    CPU it always does), and `cuda_graph_launches` those launched in the last replayed step. The shares of communication
    are of the same step. `accuracy` and macro `f1` are a fine-tuned classifier's on `scored_samples` held out, after
    the replay's updates. `replayed_updates` falls short of the replay's steps where loss scaling skipped some.
    `model_called`: the model was called with what wraps it; `compiled_nothing`: torch.compile wraps it, and was never
    called. `gradient_norm` is that of the first update, of all ranks together, and None where a gradient is sparse;
    `gradient_sample` has some elements of it where one rank has all parameters, and `gradient_spread` is by how much of
    their norm those of ranks that average gradients are apart. Of the baseline, `repeated_losses` are those of a second
    replay, which show how exactly losses can be compared, and `draws` says whether the forward pass draws random
    numbers. `samples_per_pass` are those of one forward pass on one rank, and `normalises_batch`: layers of the model
    look across them. `losses_unknown` says why the losses are not compared. On a CPU the shares of forward, backward
    and optimizer, and those of the `kinds` of operators, are of the time of the last replayed step; the FLOP and bytes
    of each kind are those of the step before, of one rank that is not compiled (harness.evidence.work).
    """

    parameters: int
    trained_parameters: int
    updates: int
    skipped_updates: int
    tensors: int
    moved_tensors: int
    movement_rms: float
    weight_dtypes: list[str]
    state_dtypes: list[str]
    graph_breaks: int | None = None
    recompiles: int | None = None
    cudagraph_skips: int | None = None
    cuda_graph_launches: int | None = None
    gradient_dtypes: list[str] | None = None
    attention_kernels: list[str] | None = None
    samples_per_update: float | None = None
    tokens_per_update: float | None = None
    padded_tokens_per_update: float | None = None
    replayed_updates: int | None = None
    communication_share: float | None = None
    exposed_communication_share: float | None = None
    slowest_rank: int | None = None
    slowest_rank_lag: float | None = None
    rank_exposed_shares: list[float] | None = None
    accuracy: float | None = None
    f1: float | None = None
    scored_samples: int | None = None
    first_losses: list[float] | None = None
    repeated_losses: list[float] | None = None
    draws: bool | None = None
    samples_per_pass: float | None = None
    normalises_batch: bool | None = None
    model_called: bool | None = None
    compiled_nothing: bool | None = None
    gradient_norm: float | None = None
    gradient_sample: list[float] | None = None
    gradient_spread: float | None = None
    losses_unknown: str | None = None
    forward_share: float | None = None
    backward_share: float | None = None
    optimizer_share: float | None = None
    kinds: list[str] | None = None
    kind_shares: list[float] | None = None
    kind_flops: list[float] | None = None
    kind_bytes: list[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One arm in one repetition, complete: what was asked, how it ended, and what was seen.

    `heat_part` tells apart the parts of a heat that did not fit in memory at once: only records of the same part and
    repetition are set against each other. They ran interleaved, or `alone`: one after the other, each while no other
    arm was in memory. `copy` tells apart processes of the same arm in one heat: the baseline has several.
    `lead_steps` of each turn found the arm's caches cold and are not counted; neither are `dropped_rounds`, in which
    something else was seen to take what the arms need: `disturbances` says what, in words. If that left too few
    rounds, the whole repetition is `disturbed` and none of it is counted. `changes` are what the techniques declare
    that they change. `batch` is the arm's own, samples of one update over all ranks. `step_flops` counts one update
    of the unmodified model on that batch (one forward pass in the phase infer). `predicted_peak_bytes` is what was said
    before it ran of the most that its tensors would take at once, over all ranks.
    """

    run_id: str
    plan: str
    workload: str
    techniques: str
    repetition: int
    heat_part: int
    status: Status
    reason: str | None
    device: str
    machine_id: str
    changes: list[str] = field(default_factory=list)
    world_size: int
    batch: int
    sequence: int | None
    seed: int
    corpus_sha256: str
    workload_sha256: str | None = None
    compute: str | None
    step_flops: float | None
    parameters: int | None
    started_at: str
    command: str
    measurement: Measurement
    certificate: WorkCertificate | None
    alone: bool = False
    copy: int = 0
    lead_steps: int = 0
    dropped_rounds: list[int] = field(default_factory=list)
    disturbances: list[str] = field(default_factory=list)
    disturbed: bool = False
    predicted_peak_bytes: int | None = None
