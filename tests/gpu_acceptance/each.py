"""Every technique by name, and its result: those that run at once come first, those that compile last."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench.composition import compose, unmet
from bench.host import compiler
from bench.registry import techniques
from bench.spec import BASELINE, WorkloadSpec
from harness.heats.conformance import MODELS, PROTOCOL
from harness.preparation.prepared import Prepared
from harness.record import Record, Status
from reports.wording.quantity import several
from tests.gpu_acceptance.arms import measured, only, prepared
from tests.gpu_acceptance.rows import Row, Verdict, failed, not_run
from tests.gpu_acceptance.stand import Stand

BATCH, SEQUENCE = 16, 32
"""The batch is divisible by every number of micro-batches."""

BESIDE = {
    "batch_per_rank": ("ddp_2", "batch_per_rank"),
    "sdpa_cudnn": ("amp_bf16", "sdpa_cudnn"),
    "sdpa_flash": ("amp_bf16", "sdpa_flash"),
}
"""Techniques that make no sense alone, or have kernels only for half precision, with a composition for each."""

NO_DROPOUT = "llama/nano"
ELSEWHERE = {"flex_attention": NO_DROPOUT, "liger": NO_DROPOUT}
"""Techniques that cannot run on the usual model: it has dropout, and Liger has no kernels for it."""

HEAT_ARMS = 8
"""Few arms per heat, so that rows come early: a heat's records are available when it ends."""

EXPECTED = "ok, or refused beforehand"


def each(stand: Stand) -> None:
    """One row for each technique; those without time are listed by name."""
    chosen: dict[str, tuple[str, ...]] = {name: BESIDE.get(name, (name,)) for name in _names(stand)}
    protocol = dataclasses.replace(PROTOCOL, heat_arms=HEAT_ARMS, timeout_s=120.0)
    specs = [WorkloadSpec(model=model, batch=BATCH, sequence=SEQUENCE) for model in (MODELS[0], NO_DROPOUT)]
    made = prepared(stand, specs, list(chosen.values()), protocol)
    waiting = dict(chosen)
    try:
        for name, names in chosen.items():
            if reason := unmet(compose(names), made.host):
                stand.tell(
                    Row(what=_what(name, names), seen=f"refused: {reason}", expected=EXPECTED, verdict=Verdict.OK)
                )
                del waiting[name]
        for group in _groups(list(waiting)):
            _run(stand, made, group, waiting)
    finally:
        if waiting:
            stand.tell(not_run(f"{len(waiting)} techniques", f"no time left: {', '.join(waiting)}"))


def _names(stand: Stand) -> Sequence[str]:
    """The requested techniques, or all. Raises ValueError for an unknown one."""
    for name in stand.names:
        compose([name])
    return stand.names or list(techniques())


def _groups(names: Sequence[str]) -> list[list[str]]:
    """The techniques that are tried together: of similar cost, on one model, the most expensive last."""
    known = techniques()
    kinds: dict[tuple[int, str], list[str]] = {}
    for name in names:
        dear = (known[name].pretrained is not None, compiler in known[name].needs, "max_autotune" in name)
        cost = max((index + 1 for index, is_so in enumerate(dear) if is_so), default=0)
        kinds.setdefault((cost, ELSEWHERE.get(name, MODELS[0])), []).append(name)
    return [kinds[kind] for kind in sorted(kinds)]


def _run(stand: Stand, made: Prepared, group: Sequence[str], waiting: dict[str, tuple[str, ...]]) -> None:
    """Run one sweep; techniques that it reports are removed from `waiting`."""
    named = {"+".join(waiting[name]): name for name in group}

    def keep(record: Record) -> None:
        if record.techniques != BASELINE:
            name = named[record.techniques]
            stand.tell(_row(_what(name, waiting.pop(name)), record))
        elif record.status is not Status.OK:
            stand.tell(failed(f"baseline on {record.workload}", f"{record.status}: {record.reason}"))

    model = ELSEWHERE.get(group[0], MODELS[0])
    measured(stand, only(made, [waiting[name] for name in group], model=model), keep)


def _what(name: str, names: Sequence[str]) -> str:
    beside = [other for other in names if other != name]
    return f"technique {name}" + (f" with {several(beside)}" if beside else "")


def _row(what: str, record: Record) -> Row:
    if record.status is Status.OK:
        return Row(what=what, seen="ok", expected=EXPECTED, verdict=Verdict.OK)
    seen = f"{record.status}: {record.reason}"
    # `off`, because this was not known before it was tried: a user would learn it late.
    verdict = Verdict.OFF if record.status is Status.UNSUPPORTED else Verdict.FAILED
    return Row(what=what, seen=" ".join(seen.split()), expected=EXPECTED, verdict=verdict)
