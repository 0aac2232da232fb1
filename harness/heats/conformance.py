"""Whether a technique keeps its promises: it applies, trains, and changes nothing that it does not declare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench import temporary
from bench.composition import allowance, compose
from bench.corpus import cache_folder
from bench.facts import Change
from bench.spec import BASELINE, Plan, Protocol, WorkloadSpec
from harness.evidence.equal_work import unequal_work
from harness.heats.sweep import Sweep
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record, Status

MODELS = ("gpt2/nano", "bert/nano")

PARTNERS = (
    ("amp_bf16",),
    ("accumulate_2",),
    ("adamw_fused",),
    ("checkpoint_activations",),
    ("amp_fp16", "adamw_fused"),
    ("optimizer_in_backward",),
)
"""A technique is tried together with each of these: one from each of the slots that most compositions use, an optimizer
that unscales gradients itself, and one with which no step sees all gradients at once."""

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
"""As little timing as possible, and ten replayed updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One composition on one model. `loss_difference` is the largest relative difference among ten replayed losses,
    None if it ended before, or if the techniques declare changes that make losses incomparable: `reason` then names
    them."""

    workload: str
    techniques: str
    status: Status
    loss_difference: float | None
    reason: str | None

    @property
    def passed(self) -> bool:
        return self.status in (Status.OK, Status.UNSUPPORTED)


def check(
    name: str,
    fork_server: ForkServer,
    *,
    models: Sequence[str] = MODELS,
    partners: Iterable[tuple[str, ...]] = PARTNERS,
) -> list[Finding]:
    """Run the technique alone and with each partner that it does not exclude. With a partner it has to do what it does
    alone, except for the changes that the partner declares. Raises ValueError if the technique is unknown."""
    compose([name])
    together = [partner for partner in partners if name not in partner and not conflict((name, *partner))]
    beside = {(name, *partner): partner for partner in together}
    records = _measured([(name,), *beside], fork_server, models=models)
    alone = {record.workload: record for record in records if record.techniques == name}
    labels = {"+".join(names): partner for names, partner in beside.items()}
    return [
        _as_alone(finding, record, alone[record.workload], labels[record.techniques])
        if record.techniques in labels
        else finding
        for finding, record in zip(_findings(records), _rivals(records), strict=True)
    ]


def _as_alone(finding: Finding, record: Record, alone: Record, partner: tuple[str, ...]) -> Finding:
    """The finding, or a failed one if the technique trains differently with the partner than alone."""
    if not record.certificate or not alone.certificate or {record.status, alone.status} != {Status.OK}:
        return finding
    differences = unequal_work(record.certificate, alone.certificate, *allowance(compose(partner)))
    if not differences:
        return finding
    told = "; ".join(differences)
    reason = f"beside {'+'.join(partner)} it trains differently than alone, which is called the baseline here: {told}"
    return replace(finding, status=Status.UNEQUAL_WORK, reason=reason)


def conflict(names: Sequence[str]) -> str | None:
    """Why the composition is refused before anything runs, None if it is accepted."""
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
    protocol: Protocol = PROTOCOL,
) -> list[Finding]:
    """Run each composition once on each model, together with the baseline."""
    records = _measured(
        compositions,
        fork_server,
        models=models,
        batch=batch,
        sequence=sequence,
        corpus=corpus,
        device=device,
        protocol=protocol,
    )
    return _findings(records)


def _measured(
    compositions: Sequence[tuple[str, ...]],
    fork_server: ForkServer,
    *,
    models: Sequence[str],
    batch: int = 8,
    sequence: int | None = 32,
    corpus: str | None = None,
    device: str = "cpu",
    protocol: Protocol = PROTOCOL,
) -> list[Record]:
    """Run the compositions. Compiled code is kept: compile time is of no interest here, and the next check need not
    wait for it."""
    specs = tuple(WorkloadSpec(model=model, batch=batch, sequence=sequence, corpus=corpus) for model in models)
    plan = Plan(
        name="check",
        workloads=specs,
        compositions=tuple(compositions),
        device=device,
        repetitions=1,
        protocol=protocol,
    )
    records: list[Record] = []
    with temporary.folder("check") as folder:
        sweep = Sweep(
            prepare(plan, fork_server),
            run_id="check",
            keep=records.append,
            choose=lambda _: [],
            shared_cache=cache_folder() / "compiled",
            log=folder / "arms.log",
        )
        sweep.run(fork_server)
    return records


def _rivals(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.techniques != BASELINE]


def _findings(records: Sequence[Record]) -> list[Finding]:
    references = {record.workload: record for record in records if record.techniques == BASELINE}
    return [_finding(record, references[record.workload]) for record in _rivals(records)]


def _finding(record: Record, reference: Record) -> Finding:
    return Finding(
        workload=record.workload,
        techniques=record.techniques,
        status=record.status,
        loss_difference=_loss_difference(record, reference),
        reason=record.reason or _why_no_losses(record),
    )


def _other_changes(record: Record) -> list[str]:
    return [change for change in record.changes if change != Change.NUMERICS.value]


def _why_no_losses(record: Record) -> str | None:
    changes = _other_changes(record)
    return f"it changes {' and '.join(changes)}, so no losses were compared" if changes else None


def _loss_difference(record: Record, reference: Record) -> float | None:
    if record.certificate is None or reference.certificate is None or _other_changes(record):
        return None
    losses, others = record.certificate.first_losses or [], reference.certificate.first_losses or []
    return max(
        (abs(loss - other) / (abs(other) or 1.0) for loss, other in zip(losses, others, strict=True)), default=None
    )
