"""What one repetition of one arm leaves behind, as plain data. Standard library only.

Times are raw; medians are derived later. An unknown value is None, and `unknown` says why.
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
    """Where the measurements were made. Records are comparable only if their `machine_id` is the same.

    `driver` is the version of the GPU driver and the CUDA release that it supports, `cuda` the release that torch was
    built for. `memory_bytes_per_s` is the rate at which elementwise additions read and write `memory`, and within the
    `caches`. `hosts` names all hosts if a run has several; everything else then describes the leading one.
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
"""In `Measurement.unknown`, everything NVML reports on a GPU: `sample_gpu_*`, `throttle_reasons`,
`sustained_energy_j`."""


@dataclass(slots=True, kw_only=True)
class Measurement:
    """Raw times (one entry per step unless noted otherwise) and peaks of one arm in one repetition.

    `ready_s` runs from the request for the arm to the end of its first step. `first_step_s` is that step alone,
    including any compilation; it is also the first of `warmup_step_times_s`. `losses` has an entry for every step.
    `round_index` gives the round of each entry of `round_step_times_s`: the entries of one round are one turn of
    contiguous steps, including the uncounted ones at its beginning (`Record.lead_steps`). On a GPU the step times are
    device events, and `round_host_times_s`, one entry per turn, is the host's clock around the same synchronised steps;
    on a CPU both are the host's clock. `*_data_wait_s` is how long the training thread waited for the next batch, and
    `*_copy_s` how long it then took to copy it to the device: from pageable memory, the copy waits for the step before.
    A copy in another thread, which a technique may use, counts as neither. `*_samples` and `*_tokens` count what was
    fed over all ranks, without padding; tokens are missing if samples are not text. `sustained_*` cover a window of
    contiguous steps for telemetry, if there was one, and `sample_*` were read in it; otherwise they were read between
    turns, and `sample_t_s` is the time spent in turns so far. `rss_*` add up the processes of the arm.
    `peak_memory_bytes` is the allocator's peak on a GPU. On a CPU it is how much the resident set grew beyond that of
    the freshly forked process, less the pages of files mapped on the way (libraries, the corpus): how many of those are
    resident depends on the page cache, not on the arm. There `allocated_peak_bytes` is the most that a replay with the
    arm's dropout had allocated, to the byte. `throttle_reasons` is empty if the GPU was asked and nothing throttled it,
    and None if it could not be asked. `rank_step_times_s` is the median of each rank's own steps in turns, and
    `rank_hosts` the host of each rank of an arm that spans hosts. `unknown` has one `note` for each figure that could
    not be read.
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
    """The entry of `Measurement.unknown` for one of its fields, or for GPU_FIGURES."""
    return f"{figure} {'are' if figure == GPU_FIGURES else 'is'} unknown: {reason}"


def why_unknown(measurement: Measurement, figure: str) -> str | None:
    """Why a field that NVML reports is unknown, as noted in the measurement; None if there is no note."""
    for entry in measurement.unknown:
        for name in (figure, GPU_FIGURES):
            if entry.startswith(note(name, "")):
                return entry.removeprefix(note(name, ""))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkCertificate:
    """What the arm really did. Counts are per optimizer update over all ranks unless noted otherwise.

    `movement_rms` is the root mean square change of a fixed sample of parameters over the timed life. `first_losses`
    comes from a replay of the first updates from the same seed, without dropout, so that it can be compared with the
    baseline's; `samples_per_update` and the tokens are counted there, at the model's own input. `attention_kernels` are
    the fused kernels of the last replayed step: none means plain matrix products, and unknown that something was
    compiled and may hide them. `cudagraph_skips` counts how often torch.compile gave up on a CUDA graph that was
    requested (on a CPU it always does), and `cuda_graph_launches` the graphs launched in the last replayed step. The
    shares of communication are of the same step. `accuracy` and macro `f1` are those of a fine-tuned classifier on
    `scored_samples` held-out samples, after the updates of the replay. `replayed_updates` is less than the number of
    replayed steps if loss scaling skipped some. `model_called`: the model was called through its wrapper;
    `compiled_nothing`: torch.compile wraps it, but nothing was compiled. `gradient_norm` is that of the first update
    over all ranks, and None if a gradient is sparse; `gradient_sample` has some of the gradient's elements if one rank
    has all parameters, and `gradient_spread` is how far apart the norms are on ranks that average gradients, relative
    to the norm. For the baseline, `repeated_losses` are those of a second replay, which show how exactly losses can be
    compared, and `draws` says whether the forward pass draws random numbers. `samples_per_pass` is the number in one
    forward pass on one rank, and `normalises_batch` says whether layers normalise over them. `losses_unknown` says
    why the losses are not compared. On a CPU the shares of forward, backward and optimizer, and those of the `kinds` of
    operators, are of the time of the last replayed step; the FLOP and bytes of each kind are those of the step before,
    on one rank that is not compiled (harness.evidence.work).
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

    `heat_part` distinguishes the parts of a heat that did not fit in memory at once: only records of the same part and
    repetition are compared. Their arms ran interleaved, or `alone`: one after the other, each while no other arm was in
    memory. `copy` distinguishes processes of the same arm in one heat: the lead, usually the baseline, has several.
    `lead_steps` at the start of each turn found the arm's caches cold and are not counted. Nor are `dropped_rounds`, in
    which something else was seen to use what the arms need: `disturbances` says what, in words. If that left too few
    rounds, the whole repetition is `disturbed` and none of it is counted. `changes` are those that the techniques
    declare. `batch` is the arm's own, in samples per update over all ranks. `step_flops` counts one update of the
    unmodified model on that batch (one forward pass in the phase infer). `predicted_peak_bytes` is the most that the
    arm's tensors were predicted, before it ran, to take at once over all ranks.
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
