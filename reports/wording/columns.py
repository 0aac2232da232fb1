"""The figures of a comparison that are shown: the title, the text and, if there is no figure, the reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.spec import BASELINE
from harness.record import Machine, Record, Status
from harness.record import why_unknown as why_not_read
from reports.wording import quantity
from results.compare import Comparison, Verdict
from results.metrics import METRICS, Metric, why_no_flops
from results.payback import Pays

OUTCOME_WORDS = {
    Status.OOM: "out of memory",
    Status.UNSUPPORTED: "unsupported",
    Status.TIMEOUT: "timed out",
    Status.CRASHED: "crashed",
    Status.DIVERGED: "diverged",
    Status.UNEQUAL_WORK: "unequal work",
}
AGAINST_BASELINE = ("speedup", "claim_low", "loss_delta", "smallest_effect", "seconds_to_know", "pays_after_updates")
MAIN = {
    "tokens_per_s",
    "peak_memory_bytes",
    "first_step_s",
    "cpu_util_pct",
    "gpu_util_pct",
    "energy_j_per_token",
    "mfu",
    "exposed_communication_share",
    "accuracy",
}
"""The metrics with a column of their own on the page."""
IN_TABLES = {"tokens_per_s", "peak_memory_bytes", "first_step_s"}
"""The metrics in the tables of the terminal and of Markdown."""
REFERENCE = "reference"
"""The text in the baseline's own row in place of a comparison with the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure. `name` is a field of Comparison; `show` formats it if it is known.

    `main` figures have a column of their own on the page; the others are among a row's further figures. `terminal` and
    `markdown` say whether it is in those tables.
    """

    name: str
    title: str
    caption: str
    show: Callable[[Comparison], str]
    main: bool = True
    terminal: bool = False
    markdown: bool = False


def _column(name: str, title: str, caption: str, form: Callable[[float], str], **where: bool) -> Column:
    return Column(name=name, title=title, caption=caption, show=lambda item: form(getattr(item, name)), **where)


def _of(name: str, metric: Metric) -> Column:
    """The column of a metric; it is in both tables or in neither."""
    made = _column(
        name,
        metric.title,
        metric.caption,
        getattr(quantity, metric.form),
        main=name in MAIN,
        terminal=name in IN_TABLES,
        markdown=name in IN_TABLES,
    )
    return dataclasses.replace(made, show=cuda_graphs) if name == "cuda_graph_launches" else made


def speedup(comparison: Comparison) -> str:
    """`1.32x [1.28, 1.36]`. Raises ValueError if there is no speed-up."""
    if comparison.speedup is None:
        raise ValueError(f"{comparison.techniques!r} on {comparison.workload!r} has no speed-up: ask `is_ranked` first")
    return quantity.ratio_interval(comparison.speedup, comparison.speedup_low, comparison.speedup_high)


def claim(comparison: Comparison) -> str:
    """`[1.25, 1.39]`: the bounds that hold for all arms together."""
    low, high = comparison.claim_low, comparison.claim_high
    if low is None or high is None or comparison.speedup is None:
        return quantity.UNKNOWN
    return quantity.ratio_interval(comparison.speedup, low, high).partition(" ")[2]


def pays_after(comparison: Comparison) -> str:
    """`1,240 updates [910, 2,060]`, or `at once`."""
    updates = [comparison.pays_after_updates, comparison.pays_after_updates_low, comparison.pays_after_updates_high]
    if comparison.pays is not Pays.AFTER:
        return str(comparison.pays)
    estimate, low, high = (quantity.significant(math.ceil((item or 0.0) - 1e-6)) for item in updates)
    return f"{estimate} updates [{low}, {high}]"


def cuda_graphs(comparison: Comparison) -> str:
    """The number of launched CUDA graphs, or that there were none because all were skipped."""
    if not comparison.cuda_graph_launches and comparison.cudagraph_skips:
        return "none, all were skipped"
    return f"{comparison.cuda_graph_launches:.0f}"


COLUMNS: tuple[Column, ...] = (
    Column(
        name="speedup",
        title="Speed-up",
        caption="fp32's time per token over the arm's",
        show=speedup,
        terminal=True,
        markdown=True,
    ),
    Column(
        name="claim_low",
        title="Joint bounds",
        caption="of the speed-up, for all arms of the workload together: verdicts follow them",
        show=claim,
        main=False,
    ),
    _column(
        "step_time_s",
        "Step time",
        "one optimizer update, in warm contiguous training",
        quantity.duration,
        terminal=True,
        markdown=True,
    ),
    *(_of(name, metric) for name, metric in METRICS.items()),
    _column(
        "scaling_efficiency",
        "Scaling efficiency",
        "speed-up over devices used; on a CPU ranks share the cores",
        quantity.share,
    ),
    _column(
        "loss_delta",
        "Loss change",
        "against fp32 after the same updates on the same data",
        quantity.signed,
        markdown=True,
    ),
    _column("parameters", "Parameters", "of the model as it was trained", quantity.count, main=False),
    _column(
        "smallest_effect",
        "Detectable change",
        "smallest change found with 80 % probability",
        quantity.share,
        main=False,
        terminal=True,
        markdown=True,
    ),
    Column(
        name="pays_after_updates",
        title="Pays after",
        caption="updates until its longer start is earned back",
        show=pays_after,
        main=False,
    ),
    _column(
        "seconds_to_know",
        "Time to a verdict",
        "about how long more repetitions of an unclear arm would take",
        quantity.duration,
        main=False,
    ),
    _column(
        "repetitions",
        "Repetitions",
        "fresh processes that ended ok",
        quantity.whole,
        main=False,
        markdown=True,
    ),
    _column("dropped", "Dropped", "repetitions that something disturbed", quantity.whole, main=False),
)
TITLES = {column.name: column.title for column in COLUMNS}


FROM_NVML = {"gpu_util_pct": "sample_gpu_util_pct", "energy_j_per_token": "sustained_energy_j"}
"""Figures that come from NVML, with the field of the measurement."""

OF_RANKS = {"scaling_efficiency", "exposed_communication_share", "slowest_rank"}


def value(column: Column, comparison: Comparison) -> float | None:
    """The raw figure, for sorting and testing; None if it is unknown."""
    bare: float | None = getattr(comparison, column.name)
    return bare if quantity.known(bare) else None


def text(column: Column, comparison: Comparison) -> str:
    """The figure as text, `reference` for the baseline against itself, or `unknown`."""
    if comparison.techniques == BASELINE and column.name in AGAINST_BASELINE:
        return REFERENCE
    if column.name == "pays_after_updates" and comparison.pays is Pays.NEVER:
        return comparison.pays
    return quantity.UNKNOWN if value(column, comparison) is None else column.show(comparison)


def why_unknown(column: Column, comparison: Comparison, records: Sequence[Record], machine: Machine | None) -> str:
    """Why the figure is unknown, in words. `records` are the arm's; without them and the machine it says less."""
    if comparison.status is not Status.OK:
        return comparison.reason or f"the arm ended as {OUTCOME_WORDS[comparison.status]}"
    if comparison.repetitions == 0 and comparison.reason:
        return comparison.reason
    said = _why_not_seen(column.name, comparison, records, machine)
    return said or (METRICS[column.name].unknown if column.name in METRICS else "not recorded")


def _why_not_seen(name: str, comparison: Comparison, records: Sequence[Record], machine: Machine | None) -> str | None:
    reason = None
    if name in FROM_NVML:
        reason = (machine.unknown if machine else {}).get("gpu") or _why_not_read(name, records)
    elif name == "seconds_to_know":
        reason = _why_no_time(comparison.verdict)
    elif name == "pays_after_updates":
        reason = _why_no_payback(comparison)
    elif name == "speedup":
        reason = "no repetition of the baseline ended ok beside this arm's"
    elif name in ("smallest_effect", "claim_low") and comparison.repetitions == 1:
        reason = "one repetition shows no spread"
    elif name in ("mfu", "matmul_share") and machine:
        reason = _why_no_share(name, records, machine)
    elif name in ("cuda_graph_launches", "cudagraph_skips"):
        on_cpu = any(record.device == "cpu" for record in records)
        unseen = "the profiler saw no kernels" if name == "cuda_graph_launches" else "nothing was compiled"
        reason = "there are none on a CPU" if on_cpu else unseen
    elif name in OF_RANKS:
        reason = "there is one rank" if comparison.ranks == 1 else "not seen in the replay, or no baseline ended ok"
    return reason


def _why_no_time(verdict: Verdict | None) -> str:
    if verdict is None:
        return "it was not compared"
    return "one repetition shows no spread" if verdict is Verdict.UNCLEAR else "its verdict is known"


def _why_no_payback(comparison: Comparison) -> str:
    if comparison.pays is Pays.NEVER:
        return "it is slower, so never"
    return "its start was not timed" if comparison.verdict is Verdict.FASTER else "not known to be faster"


def _why_not_read(name: str, records: Sequence[Record]) -> str | None:
    """The reason that the arm's records give for the missing reading behind the figure."""
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
