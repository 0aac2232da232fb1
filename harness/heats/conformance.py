"""Whether a technique keeps its word: it applies, trains, and changes nothing that it does not declare."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.composition import compose
from bench.corpus import cache_folder
from bench.spec import BASELINE, Plan, Protocol, WorkloadSpec
from harness.heats.sweep import Sweep
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record, Status

MODELS = ("gpt2/nano", "bert/nano")

PARTNERS = ("amp_bf16", "accumulate_2", "adamw_fused", "checkpoint_activations")
"""A technique is tried together with these, one from each of the slots that most compositions use."""

PROTOCOL = Protocol(
    warmup_s=0.0,
    warmup_min_steps=1,
    rounds=1,
    rounds_min=1,
    rounds_s=0.0,
    turn_s=0.0,
    turn_steps=1,
    baselines=1,
    pause_s=0.0,
    certify_steps=10,
    telemetry=False,
    timeout_s=600,
)
"""As little timing as there can be, and ten replayed updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One composition on one model. `loss_difference` is the largest relative one of ten replayed losses, None where
    the technique declares changes that leave losses incomparable."""

    workload: str
    techniques: str
    status: Status
    loss_difference: float | None
    reason: str | None

    @property
    def passed(self) -> bool:
        return self.status in (Status.OK, Status.UNSUPPORTED)


def check(
    name: str, fork_server: ForkServer, *, models: Sequence[str] = MODELS, partners: Iterable[str] = PARTNERS
) -> list[Finding]:
    """Run the technique alone and beside each partner that it does not exclude. Raises ValueError if it is unknown."""
    compose([name])
    together = [(name, partner) for partner in partners if partner != name and not conflict((name, partner))]
    return run([(name,), *together], fork_server, models=models)


def conflict(names: Sequence[str]) -> str | None:
    """Why the composition is refused before anything runs, None if it is not."""
    try:
        compose(names)
    except ValueError as error:
        return str(error)
    return None


def run(
    compositions: Sequence[tuple[str, ...]],
    fork_server: ForkServer,
    *,
    models: Sequence[str] = MODELS,
    batch: int = 8,
    sequence: int | None = 32,
    corpus: str | None = None,
    device: str = "cpu",
) -> list[Finding]:
    """Each composition once on each model, beside the baseline.

    What is compiled is kept: nobody asks here how long that takes, and the next check of the same does not wait for it.
    """
    specs = tuple(WorkloadSpec(model=model, batch=batch, sequence=sequence, corpus=corpus) for model in models)
    plan = Plan(
        name="check",
        workloads=specs,
        compositions=tuple(compositions),
        device=device,
        repetitions=1,
        protocol=PROTOCOL,
    )
    records: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="trainpace-") as folder:
        sweep = Sweep(
            prepare(plan, fork_server),
            run_id="check",
            keep=records.append,
            choose=lambda _: [],
            shared_cache=cache_folder() / "compiled",
            log=Path(folder) / "arms.log",
        )
        sweep.run(fork_server)
    references = {record.workload: record for record in records if record.techniques == BASELINE}
    return [
        _finding(record, references[record.workload]) for record in records if record is not references[record.workload]
    ]


def _finding(record: Record, reference: Record) -> Finding:
    return Finding(
        workload=record.workload,
        techniques=record.techniques,
        status=record.status,
        loss_difference=_loss_difference(record, reference),
        reason=record.reason,
    )


def _loss_difference(record: Record, reference: Record) -> float | None:
    if record.certificate is None or reference.certificate is None or set(record.changes) - {"numerics"}:
        return None
    losses, others = record.certificate.first_losses or [], reference.certificate.first_losses or []
    return max(
        (abs(loss - other) / (abs(other) or 1.0) for loss, other in zip(losses, others, strict=True)), default=None
    )
