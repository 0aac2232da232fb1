"""Arms measured for the acceptance: prepared from what the stand knows, then raced in fresh processes or run alone."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

from bench.composition import compose, unmet
from bench.corpus import open_corpus
from bench.spec import Plan, Protocol, Trial, WorkloadSpec
from harness.heats.arm import Arm
from harness.heats.heat import Heat
from harness.heats.race import Lineup, Race
from harness.heats.sweep import Sweep
from harness.message import Message
from harness.preparation.prepared import Prepared, entry, template
from harness.record import Record, Status
from tests.gpu_acceptance.stand import Stand

NAME = "acceptance"
"""The name of its plans and runs."""


def prepared(
    stand: Stand, specs: Sequence[WorkloadSpec], compositions: Sequence[tuple[str, ...]], protocol: Protocol
) -> Prepared:
    """A plan that is ready to run, with turns that suit the device. The stand already knows the facts about the GPU,
    which would take seconds to find again."""
    plan = Plan(
        name=NAME,
        workloads=tuple(specs),
        compositions=tuple(compositions),
        device=stand.device,
        repetitions=1,
        protocol=protocol.on(stand.device),
    )
    entries = tuple(entry(stand.fork_server(), spec, open_corpus(spec.corpus)) for spec in specs)
    reasons = {
        (item.spec.name, trial.label): unmet(compose(trial.techniques), stand.host, item.spec.phase)
        for item in entries
        for trial in plan.trials(item.spec)
    }
    unsupported = {key: reason for key, reason in reasons.items() if reason}
    return Prepared(plan=plan, machine=stand.machine, host=stand.host, entries=entries, unsupported=unsupported)


def only(
    made: Prepared, compositions: Sequence[tuple[str, ...]], *, model: str | None = None, seed: int = 0
) -> Prepared:
    """A plan with only these compositions of what was prepared, on one of its models."""
    entries = tuple(entry for entry in made.entries if model is None or entry.spec.model == model)
    plan = dataclasses.replace(
        made.plan, workloads=tuple(entry.spec for entry in entries), compositions=tuple(compositions), seed=seed
    )
    labels = {"+".join(names) for names in compositions}
    unsupported = {key: reason for key, reason in made.unsupported.items() if key[1] in labels}
    return dataclasses.replace(made, plan=plan, entries=entries, unsupported=unsupported)


def measured(stand: Stand, made: Prepared, keep: Callable[[Record], object] = lambda record: None) -> list[Record]:
    """The records of one repetition in fresh processes; `keep` receives each as soon as it exists."""
    sweep = Sweep(made, run_id=NAME, keep=keep, choose=lambda records: [], log=stand.log)
    sweep.run(stand.fork_server())
    return sweep.records


def raced(stand: Stand, made: Prepared) -> list[Record]:
    """The records of one repetition of one workload in fresh processes, without replayed updates. Those would compile
    the model again, and are not needed for times and memory."""
    (item,) = made.entries
    blank = template(made.plan, made.machine, item, NAME)
    baseline, *rivals = made.trials(item)
    heat = Heat(
        host=made.host,
        protocol=made.plan.protocol,
        gpus=stand.gpus,
        request=_request(stand, item.spec) | {"seed": made.plan.seed},
        lead_steps=None,
        draw=random.Random(made.plan.seed),
    )
    # No toolchain cache: the compiler examines the machine in the first step, which is not reported.
    lineup = Lineup(fork_server=stand.fork_server(), record=blank, compile_caches=stand.folder / "caches", replay=False)
    refused = [
        dataclasses.replace(blank, techniques=label, status=Status.UNSUPPORTED, reason=reason)
        for (_, label), reason in made.unsupported.items()
    ]
    return [*refused, *Race(heat, lineup).run(baseline, rivals)]


def _request(stand: Stand, spec: WorkloadSpec) -> Message:
    return {
        "workload": dataclasses.asdict(spec),
        "corpus": dataclasses.asdict(open_corpus(spec.corpus)),
        "device": stand.device,
        "log": str(stand.log),
    }


def warm_arm(stand: Stand, techniques: tuple[str, ...], protocol: Protocol) -> Arm:
    """An arm of the usual workload, built and warmed up. Raises RuntimeError with the reason if it fails."""
    request = _request(stand, stand.spec) | {"techniques": list(techniques), "seed": 0}
    trial = Trial(workload=stand.spec, techniques=techniques, device=stand.device)
    arm = Arm(trial, request=request, protocol=protocol.on(stand.device), host=stand.host, is_cold=True)
    arm.start(stand.fork_server())
    check(arm)
    return arm


def check(arm: Arm) -> None:
    """Raises RuntimeError with the reason if the arm has ended."""
    if not arm.alive:
        raise RuntimeError(f"the arm {arm.trial.label} ended as {arm.status}: {arm._reason}")
