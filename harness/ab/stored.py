"""An earlier run as the base of a comparison: what it has, and whether it is comparable with what is measured now."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.composition import allowance, compose
from bench.corpus import Corpus
from bench.spec import Plan, Protocol, WorkloadSpec, parse_composition
from harness.evidence.equal_work import unequal_work
from harness.preparation.prepared import Entry
from harness.record import Machine, Record, Status, WorkCertificate

SAME_MACHINE = ("machine_id", "device", "python", "packages", "driver", "cuda")
"""`driver` is NVML's, with the CUDA release that it supports; `cuda` is the release that torch was built for."""

COUNTED = "gate"
DISTURBED = "gate, disturbed"
SLOWED = "gate, slowed on purpose"
"""The plan names of a gate's repetitions. Only those that count can be a base later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The records, the machine and the plan of an earlier run; `label` is the composition that serves as the base."""

    name: str
    label: str
    records: Sequence[Record]
    machine: Machine
    plan: Plan

    def of(self, workload: str) -> list[Record]:
        """The base's repetitions of this workload that ended well, in order."""
        found = [item for item in self.records if (item.workload, item.techniques) == (workload, self.label)]
        return sorted((item for item in found if item.status is Status.OK), key=lambda item: item.repetition)

    def entry(self, spec: WorkloadSpec, corpus: Corpus, protocol: Protocol) -> Entry | str:
        """The workload as it was then, or why it cannot be the base now. Only a gate has watched for disturbances and
        left out what was disturbed."""
        found = self.of(spec.name)
        if not found:
            known = sorted({f"{item.workload} {item.techniques}" for item in self.records})
            return f"run {self.name!r} has no good repetition of {spec.name} {self.label}, only of {', '.join(known)}"
        first = found[0]
        if (self.plan.name, self.plan.protocol) != (COUNTED, protocol):
            return (
                f"run {self.name!r} (plan {self.plan.name!r}) was not measured by a gate: give one side of an earlier "
                "gate, such as runs/ID/head"
            )
        if first.corpus_sha256 != corpus.sha256:
            return f"run {self.name!r} used another corpus"
        return Entry(
            spec=spec,
            corpus=corpus,
            batch=first.batch,
            sequence=first.sequence,
            parameters=first.parameters,
            step_flops=first.step_flops,
        )

    def differences(self, machine: Machine) -> list[str]:
        """In words, how machine and software differ from those of the run."""
        pairs = {name: (getattr(self.machine, name), getattr(machine, name)) for name in SAME_MACHINE}
        return [_difference(name, then, now) for name, (then, now) in pairs.items() if then != now]


def _difference(name: str, then: object, now: object) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in then | now if then.get(key) != now.get(key)]
        changed = [f"{key} {then.get(key)} then, {now.get(key)} now" for key in keys]
        return f"other {name}: {', '.join(changed)}"
    return f"another {name}: {then} then, {now} now"


def held_against(stored: Record, head: Record) -> Record:
    """The head's record, marked as unequal work if its certificate shows other work than the stored one's.

    Left out is what only one of the certificates knows; so are the replay's length, which depends on the machine's
    pace, and its losses and gradients, which are of other data, because each repetition has its own seed.
    """
    if head.status is not Status.OK or head.certificate is None or stored.certificate is None:
        return head
    certificates = (head.certificate, stored.certificate)
    names = [item.name for item in dataclasses.fields(WorkCertificate)]
    unknown = {name for name in names if None in [getattr(item, name) for item in certificates]}
    unknown |= {"first_losses", "replayed_updates", "gradient_norm", "gradient_sample"}
    nothing: dict[str, Any] = dict.fromkeys(unknown)
    own, other = (dataclasses.replace(item, **nothing) for item in certificates)
    compositions = [set(parse_composition(record.techniques)) for record in (stored, head)]
    differences = unequal_work(own, other, *allowance(compose(compositions[0] ^ compositions[1])))
    if not differences:
        return head
    return dataclasses.replace(head, status=Status.UNEQUAL_WORK, reason="; ".join(differences))
