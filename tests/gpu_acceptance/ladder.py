"""GPT-2 124M from plain float32 up to everything that is usually turned on: tokens per second and MFU at each rung."""

from __future__ import annotations

from bench.composition import unmet
from bench.registry import techniques
from bench.spec import BASELINE, Protocol, WorkloadSpec
from harness.preparation.prepared import Prepared
from harness.record import Record, Status
from reports.wording.quantity import count, percent, share
from results.metrics import METRICS, why_no_flops
from results.pace import rate_per_s
from tests.gpu_acceptance.arms import only, prepared, raced
from tests.gpu_acceptance.rows import Row, failed, judged, needs_gpu, not_run
from tests.gpu_acceptance.stand import Stand

EAGER: tuple[tuple[str, ...], ...] = ((), ("tf32",), ("amp_bf16",))
ALL = ("amp_bf16", "compile", "sdpa_flash", "pad_vocabulary", "adamw_fused")
COMPILED = tuple(ALL[:length] for length in (2, 3, 4, 5))
RUNGS = (*EAGER, *COMPILED)

NOT_SLOWER = 0.97
"""The least speed over the rung before: one repetition cannot resolve smaller differences."""

PUBLISHED = "on an H100 llm.c has 463 k/s, by 10 B tokens in 45 minutes on eight: https://github.com/KellerJordan/modded-nanogpt"

SEQUENCE = 1024
BATCHES = (16, 8, 4, 2, 1)

PROTOCOL = Protocol(warmup_s=1.0, sustained_s=2.0, rounds_s=1.0)

LEAST_COMPILED_S = 45.0
"""A rung that compiles is not started with less time than this, most of which compilation takes."""


def ladder(stand: Stand) -> None:
    """The eager rungs together, then the highest, then those between as time allows; each against the baseline."""
    spec = _workload(stand)
    rungs = EAGER if stand.is_small else RUNGS
    made = prepared(stand, [spec], rungs[1:], PROTOCOL)
    found: dict[tuple[str, ...], Record] = {}
    for heat in (EAGER[1:], *([rung] for rung in (COMPILED[-1], *COMPILED[:-1]))):
        name = _name(heat[-1])
        if stand.is_small and heat[-1] in COMPILED:
            stand.tell(needs_gpu(f"ladder: {name}"))
        elif found and stand.left_s < LEAST_COMPILED_S:
            stand.tell(not_run(f"ladder: {name}", "no time left"))
        else:
            records = {record.techniques: record for record in raced(stand, only(made, heat))}
            for rung in ((), *heat) if not found else heat:
                _tell(stand, made, rung, records["+".join(rung) or BASELINE], found)


def _workload(stand: Stand) -> WorkloadSpec:
    if stand.is_small:
        return WorkloadSpec(model="gpt2/nano", batch=8, sequence=64)
    here = stand.host
    sizes = [WorkloadSpec(model="gpt2/small", batch=batch, sequence=SEQUENCE) for batch in BATCHES]
    # The largest of which two arms fit, the same for all rungs.
    return next((spec for spec in sizes if here.fits(spec)), sizes[-1])


def _name(rung: tuple[str, ...]) -> str:
    return "+".join(rung) or "float32"


def _tell(
    stand: Stand, made: Prepared, rung: tuple[str, ...], record: Record, found: dict[tuple[str, ...], Record]
) -> None:
    """The row of a rung, compared with the highest measured rung below it."""
    stand.tell(row(made, rung, record, found))
    if record.status is Status.OK:
        found[rung] = record


def row(made: Prepared, rung: tuple[str, ...], record: Record, found: dict[tuple[str, ...], Record]) -> Row:
    what = f"ladder: {_name(rung)}"
    known = techniques()
    if record.status is Status.UNSUPPORTED and unmet([known[name] for name in rung], made.host):
        return not_run(what, f"{record.reason}")
    if record.status is not Status.OK:
        return failed(what, f"{record.status}: {record.reason}")
    speed = _tokens_per_s(record)
    mfu = METRICS["mfu"].derive(record, made.machine)
    why = why_no_flops(record) or made.machine.unknown.get("mfu", "no peak of its number format is on file")
    used = f"MFU {share(mfu)}" if mfu is not None else f"MFU unknown: {why}"
    shape = f"batch {record.batch}, sequence {record.sequence}"
    seen = f"{count(speed)} tokens/s, {used}; {shape}"
    below = [other for other in RUNGS[: RUNGS.index(rung)] if other in found]
    if not below:
        return judged(what, seen, "tokens/s above 0", holds=speed > 0)
    gain = speed / _tokens_per_s(found[below[-1]])
    expected = f"at least {percent(100 * NOT_SLOWER)} of {_name(below[-1])}"
    published = f"; {PUBLISHED}" if rung == ALL else ""
    return judged(what, f"{seen}; {gain:.2f}x {_name(below[-1])}", expected + published, holds=gain >= NOT_SLOWER)


def _tokens_per_s(record: Record) -> float:
    found = rate_per_s(record, "tokens")
    if found is None:
        raise RuntimeError(f"the arm {record.techniques} has no counted steps")
    return found
