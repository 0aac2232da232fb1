"""Everything that is checked before anything is measured: bad input ends here, with one clear line."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.composition import compose, ranks, unmet
from bench.corpus import Corpus, open_corpus
from bench.host import Host, compiler
from bench.registry import Technique
from bench.spec import BASELINE, Phase, Plan, Trial, WorkloadSpec
from harness.message import Message
from harness.preparation.machine import describe_machine, host
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer
from harness.record import Machine, Measurement, Record, Status

TASK_TIMEOUT_S = 600.0
"""For the longest task before a run: training a tokenizer on a large corpus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One workload of a plan, resolved: the global batch in samples, the sequence in tokens, and the model's counts.

    `calls_model`: its loss calls the model, and does not bypass its wrapper. `sha256` identifies the workload: its
    counts, and the files that it was built from.
    """

    spec: WorkloadSpec
    corpus: Corpus
    batch: int
    sequence: int | None
    parameters: int | None
    step_flops: float | None
    calls_model: bool = True
    sha256: str | None = None

    @property
    def request(self) -> Message:
        """The request fields that tell an arm which workload to build."""
        return {
            "workload": dataclasses.asdict(self.spec),
            "corpus": self.corpus.as_message(),
            "calls_model": self.calls_model,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A plan that can run. `unsupported` gives reasons by workload and technique label."""

    plan: Plan
    machine: Machine
    host: Host
    entries: tuple[Entry, ...]
    unsupported: dict[tuple[str, str], str]

    def trials(self, entry: Entry) -> list[Trial]:
        """The arms of one heat that can run, the baseline first."""
        return [
            trial for trial in self.plan.trials(entry.spec) if (entry.spec.name, trial.label) not in self.unsupported
        ]

    @property
    def compiles(self) -> bool:
        """Whether any arm that can run calls a compiler."""
        chosen = (compose(trial.techniques) for entry in self.entries for trial in self.trials(entry))
        return any(compiler in item.needs for items in chosen for item in items)

    def estimated_s(self, step_times_s: Mapping[tuple[str, str], float]) -> float:
        """A rough wall time for the minimum repetitions, whose phases are bounded. It uses the step times known by
        workload and label, and guesses others from a tenth of the matmul peak."""
        protocol = self.plan.protocol
        peak = self.machine.matmul_flops_per_s.get("float32", 1e11)
        least_steps = protocol.warmup_min_steps + protocol.rounds_min * protocol.turn_steps
        phases_s = (protocol.warmup_s + protocol.sustained_s + protocol.rounds_s) / 2
        total_s = 0.0
        for entry in self.entries:
            guessed_s = (entry.step_flops or 0.0) / (0.1 * peak)
            for trial in self.trials(entry):
                step_s = step_times_s.get((entry.spec.name, trial.label), guessed_s)
                total_s += max(phases_s, least_steps * step_s)
        return total_s * self.plan.repetitions


def device_facts(fork_server: ForkServer, device: str) -> Message:
    """What torch sees of the device. Raises ValueError if it is not there."""
    facts: Message = fork_server.run("harness.preparation.machine:probe_device", {"device": device}, TASK_TIMEOUT_S)
    return facts


def look(fork_server: ForkServer, device: str | None) -> Host:
    """What the machine offers on the device; None: the one that torch prefers. Raises ValueError if it is missing."""
    where: str = device or fork_server.run("harness.preparation.machine:default_device", {}, TASK_TIMEOUT_S)
    return _with_hosts(host(where, device_facts(fork_server, where), need_bytes(fork_server, where)), fork_server)


def _with_hosts(here: Host, fork_server: ForkServer) -> Host:
    """The host with what the joined hosts lend."""
    if not fork_server.hosts:
        return here
    return dataclasses.replace(here, hosts=len(fork_server.hosts), ranks_each=fork_server.ranks_each(here.device))


def need_bytes(fork_server: ForkServer, device: str) -> Callable[[WorkloadSpec], int | None]:
    """A function that tells how much memory the tensors of a process take that trains a workload plainly. It runs
    nothing.

    None means unknown: some models cannot be built or run without data.
    """

    @functools.cache
    def need(spec: WorkloadSpec) -> int | None:
        # The checkpoint for fine-tuning may not exist yet; pre-training takes as much memory.
        plain = dataclasses.replace(spec, phase=Phase.PRETRAIN) if spec.phase is Phase.FINETUNE else spec
        arguments = {"workload": dataclasses.asdict(plain), "corpus": open_corpus(*spec.source).as_message()}
        with contextlib.suppress(ArmFailed):
            found: int = fork_server.run(
                "harness.prediction.tasks:need_bytes", arguments | {"device": device}, TASK_TIMEOUT_S
            )
            return found
        return None

    return need


def prepare(plan: Plan, fork_server: ForkServer) -> Prepared:
    """Resolve the plan. Raises ValueError, naming the bad value and the valid ones, if any part of it cannot run."""
    composed = {trial.label: compose(trial.techniques) for trial in plan.trials(plan.workloads[0])}
    facts = device_facts(fork_server, plan.device)
    here = _with_hosts(host(plan.device, facts), fork_server)
    corpora = {source: open_corpus(*source) for source in {spec.source for spec in plan.workloads}}
    entries = tuple(entry(fork_server, spec, corpora[spec.source]) for spec in plan.workloads)
    reasons = {
        (item.spec.name, label): unmet(chosen, here, item.spec.phase)
        for item in entries
        for label, chosen in composed.items()
    }
    unsupported = {key: reason for key, reason in reasons.items() if reason}
    _check_ranks(entries, composed, here, unsupported)
    machine = describe_machine(fork_server, plan.device, facts)
    return Prepared(
        plan=plan,
        machine=_of_hosts(machine, fork_server) if fork_server.hosts else machine,
        host=here,
        entries=entries,
        unsupported=unsupported,
    )


def _of_hosts(machine: Machine, fork_server: ForkServer) -> Machine:
    """The machine that several hosts form together, led by this one."""
    identity = [machine.machine_id, *fork_server.hosts[1:], fork_server.ranks_each(machine.device)]
    machine_id = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    return dataclasses.replace(machine, machine_id=machine_id, hosts=fork_server.hosts)


def _check_ranks(
    entries: Iterable[Entry],
    composed: Mapping[str, list[Technique]],
    here: Host,
    unsupported: Container[tuple[str, str]],
) -> None:
    """Raises ValueError for a global batch that the ranks of a composition cannot share equally."""
    for item in entries:
        for label, chosen in composed.items():
            count = ranks(chosen, here).replicas
            if item.batch % count and (item.spec.name, label) not in unsupported:
                raise ValueError(
                    f"batch {item.batch} of {item.spec.name} does not divide over the {count} ranks of {label}: "
                    f"give a multiple of {count}"
                )


def entry(fork_server: ForkServer, spec: WorkloadSpec, corpus: Corpus) -> Entry:
    """The workload as this fork server builds it. Raises ValueError, saying why, if it cannot."""
    arguments = {"workload": dataclasses.asdict(spec), "corpus": corpus.as_message()}
    try:
        facts = fork_server.run("harness.preparation.probing:probe_workload", arguments, TASK_TIMEOUT_S)
    except ArmFailed as failure:
        raise ValueError(f"model {spec.name!r} cannot be built: {failure.reason}") from failure
    names = ("batch", "sequence", "parameters", "step_flops", "calls_model", "sha256")
    return Entry(spec=spec, corpus=corpus, **{name: facts[name] for name in names})


def template(plan: Plan, machine: Machine, entry: Entry, run_id: str) -> Record:
    """The record of the workload's baseline before anything is measured: the template for every arm's record."""
    return Record(
        run_id=run_id,
        plan=plan.name,
        workload=entry.spec.name,
        techniques=BASELINE,
        repetition=0,
        heat_part=0,
        status=Status.OK,
        reason=None,
        changes=[],
        device=plan.device,
        machine_id=machine.machine_id,
        world_size=1,
        batch=entry.batch,
        sequence=entry.sequence,
        seed=plan.seed,
        corpus_sha256=entry.corpus.sha256,
        workload_sha256=entry.sha256,
        compute=None,
        step_flops=entry.step_flops,
        parameters=entry.parameters,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command="",
        measurement=Measurement(),
        certificate=None,
    )
