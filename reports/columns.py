"""The figures of a comparison that are shown: title, text and, where there is no figure, the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.spec import BASELINE
from harness.record import Machine, Record, Status
from harness.record import why_unknown as why_not_read
from reports import quantity
from results.compare import Comparison, Verdict
from results.metrics import why_no_flops

OUTCOME_WORDS = {
    Status.OOM: "out of memory",
    Status.UNSUPPORTED: "unsupported",
    Status.TIMEOUT: "timed out",
    Status.CRASHED: "crashed",
    Status.DIVERGED: "diverged",
    Status.UNEQUAL_WORK: "unequal work",
}
AGAINST_BASELINE = ("speedup", "claim_low", "loss_delta", "smallest_effect", "seconds_to_know")
REFERENCE = "reference"
"""What stands where a comparison with the baseline would, in the baseline's own row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure. `name` is a field of Comparison, `show` writes it, given that it is known.

    `main` figures have a column of their own; the others appear among a row's further figures.
    """

    name: str
    title: str
    caption: str
    show: Callable[[Comparison], str]
    main: bool = True


def _column(name: str, title: str, caption: str, form: Callable[[float], str], *, main: bool = True) -> Column:
    return Column(name=name, title=title, caption=caption, main=main, show=lambda item: form(getattr(item, name)))


def speedup(comparison: Comparison) -> str:
    """`1.32x [1.28, 1.36]`. Raises ValueError where there is no speed-up."""
    if comparison.speedup is None:
        raise ValueError(f"{comparison.techniques!r} on {comparison.workload!r} has no speed-up: ask `is_ranked` first")
    return quantity.ratio_interval(comparison.speedup, comparison.speedup_low, comparison.speedup_high)


def claim(comparison: Comparison) -> str:
    """`[1.25, 1.39]`: the bounds that hold for all arms together."""
    low, high = comparison.claim_low, comparison.claim_high
    if low is None or high is None or comparison.speedup is None:
        return quantity.UNKNOWN
    return quantity.ratio_interval(comparison.speedup, low, high).partition(" ")[2]


def cuda_graphs(comparison: Comparison) -> str:
    """How many were launched, or that none was because all were skipped."""
    if not comparison.cuda_graph_launches and comparison.cudagraph_skips:
        return "none, all were skipped"
    return f"{comparison.cuda_graph_launches:.0f}"


COLUMNS: tuple[Column, ...] = (
    Column(name="speedup", title="Speed-up", caption="time a token of fp32 over the arm's", show=speedup),
    Column(
        name="claim_low",
        title="Bounds for all",
        caption="of the speed-up, for all arms of the workload together: verdicts follow them",
        show=claim,
        main=False,
    ),
    _column("step_time_s", "Step time", "one optimizer update, in warm contiguous training", quantity.duration),
    _column("tokens_per_s", "Tokens", "tokens a second, over the same steps", quantity.rate),
    _column("samples_per_s", "Samples", "samples a second, over the same steps", quantity.rate, main=False),
    _column(
        "peak_memory_bytes", "Peak memory", "the allocator's on a GPU, growth of own memory on a CPU", quantity.memory
    ),
    _column("first_step_s", "First step", "the first step alone, with any compilation in it", quantity.duration),
    _column("ready_s", "Ready after", "from asking for it to its first step's end", quantity.duration, main=False),
    _column("compile_s", "Compilation", "as the compiler counts it", quantity.duration, main=False),
    _column("cpu_util_pct", "CPU", "use by the arm's processes; 100 % is all cores", quantity.percent),
    _column("gpu_util_pct", "GPU", "mean utilisation, as NVML samples it", quantity.percent),
    _column("energy_j_per_token", "Energy per token", "from the GPU's energy counter", quantity.energy),
    _column("mfu", "MFU", "model FLOP utilisation: share of the chip's published peak", quantity.share),
    _column("matmul_share", "Of matmul peak", "share of the peak measured on this machine", quantity.share, main=False),
    _column("data_wait_pct", "Data wait", "share of the steps' time", quantity.percent, main=False),
    _column("copy_pct", "Copy", "of batches to the device, share of the steps' time", quantity.percent, main=False),
    _column(
        "scaling_efficiency",
        "Scaling efficiency",
        "speed-up over devices used; on a CPU ranks share the cores",
        quantity.share,
    ),
    _column(
        "exposed_communication_share", "Exposed communication", "of a step, hidden by no computation", quantity.share
    ),
    _column(
        "slowest_rank", "Slowest rank", "the one that the others wait for", lambda value: f"{value:.0f}", main=False
    ),
    Column(
        name="cuda_graph_launches",
        title="CUDA graphs",
        caption="launched in the last replayed step",
        show=cuda_graphs,
        main=False,
    ),
    _column(
        "cudagraph_skips",
        "CUDA graphs skipped",
        "given up by torch.compile, their kernels launched one by one",
        lambda value: f"{value:.0f}",
        main=False,
    ),
    _column("accuracy", "Accuracy", "on held-out text after the replayed updates", quantity.share),
    _column("f1", "F1", "mean over labels, on held-out text", quantity.significant, main=False),
    _column("final_loss", "Loss", "at the last replayed update, without dropout", quantity.significant, main=False),
    _column("loss_delta", "Loss change", "against fp32 after the same updates on the same data", quantity.signed),
    _column("parameters", "Parameters", "of the model as it was trained", quantity.count, main=False),
    _column("smallest_effect", "Could have seen", "least change seen with 80 % chance", quantity.share, main=False),
    _column("seconds_to_know", "To know", "more repetitions of an open arm, about", quantity.duration, main=False),
    _column("repetitions", "Repetitions", "fresh processes that ended ok", lambda value: f"{value:.0f}", main=False),
    _column("dropped", "Dropped", "repetitions that something disturbed", lambda value: f"{value:.0f}", main=False),
)
TITLES = {column.name: column.title for column in COLUMNS}


FROM_NVML = {"gpu_util_pct": "sample_gpu_util_pct", "energy_j_per_token": "sustained_energy_j"}
"""Figures that are made of what NVML tells, by the field of the measurement."""

OF_RANKS = {"scaling_efficiency", "exposed_communication_share", "slowest_rank"}


def value(column: Column, comparison: Comparison) -> float | None:
    """The bare figure, to sort and to test by; None where it is unknown."""
    bare: float | None = getattr(comparison, column.name)
    return bare if quantity.known(bare) else None


def text(column: Column, comparison: Comparison) -> str:
    """The figure in words and digits, `reference` for the baseline against itself, or `unknown`."""
    if comparison.techniques == BASELINE and column.name in AGAINST_BASELINE:
        return REFERENCE
    return quantity.UNKNOWN if value(column, comparison) is None else column.show(comparison)


def why_unknown(column: Column, comparison: Comparison, records: Sequence[Record], machine: Machine | None) -> str:
    """The reason in words. `records` are those of the arm; without them and the machine it can only say so."""
    if comparison.status is not Status.OK:
        return comparison.reason or f"the arm ended as {OUTCOME_WORDS[comparison.status]}"
    return _why_not_seen(column.name, comparison, records, machine) or "not recorded"


def _why_not_seen(name: str, comparison: Comparison, records: Sequence[Record], machine: Machine | None) -> str | None:
    reason = None
    if name in FROM_NVML:
        reason = (machine.unknown if machine else {}).get("gpu") or _why_not_read(name, records)
    elif name == "seconds_to_know":
        reason = "one repetition shows no spread" if comparison.verdict is Verdict.UNCLEAR else "its verdict is known"
    elif name == "speedup":
        reason = "no repetition of the baseline ended ok beside this arm's"
    elif name in ("smallest_effect", "claim_low") and comparison.repetitions == 1:
        reason = "one repetition shows no spread"
    elif name in ("mfu", "matmul_share") and machine:
        reason = _why_no_share(name, records, machine)
    elif name == "compile_s":
        reason = "nothing was compiled"
    elif name in ("cuda_graph_launches", "cudagraph_skips"):
        on_cpu = any(record.device == "cpu" for record in records)
        unseen = "the profiler saw no kernels" if name == "cuda_graph_launches" else "nothing was compiled"
        reason = "there are none on a CPU" if on_cpu else unseen
    elif name in ("accuracy", "f1"):
        reason = "measured in the phase finetune only"
    elif name in OF_RANKS:
        reason = "there is one rank" if comparison.ranks == 1 else "not seen in the replay, or no baseline ended ok"
    return reason


def _why_not_read(name: str, records: Sequence[Record]) -> str | None:
    """What the arm's records note of the reading that the figure is made of."""
    reasons = (why_not_read(record.measurement, FROM_NVML[name]) for record in records)
    if reason := next(filter(None, reasons), None):
        return reason
    known = any(record.measurement.sustained_energy_j is not None for record in records)
    return "no tokens were counted" if known and name == "energy_j_per_token" else None


def _why_no_share(name: str, records: Sequence[Record], machine: Machine) -> str:
    peaks = machine.published_flops_per_s if name == "mfu" else machine.matmul_flops_per_s
    if not peaks:
        return machine.unknown.get(name, "no peak is on file for this machine")
    record = next(iter(records), None)
    if record is None:
        return "not recorded"
    if reason := why_no_flops(record):
        return reason
    return f"no peak is on file for {record.compute or 'this number format'}"
