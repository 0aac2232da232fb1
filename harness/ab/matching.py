"""Before two sides are compared: what each side is, and which workloads both can run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.composition import compose, ranks, unmet
from bench.corpus import Corpus, open_corpus
from bench.host import Host
from bench.registry import Change, techniques
from bench.spec import Phase, Plan, Protocol, WorkloadSpec
from harness.ab.sides import Home, Side
from harness.ab.stored import COUNTED, SLOWED, Stored
from harness.preparation.machine import describe_machine, host
from harness.preparation.prepared import TASK_TIMEOUT_S, Entry, device_facts, entry, template
from harness.preparation.pretrain import pretrain
from harness.record import Machine, Record

SAME = ("batch", "sequence", "parameters")
"""The properties of a workload that must be the same on both sides; the certificates cover the rest. A head that gets
the same losses and gradients from fewer operations is a better one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """What is compared. `entries` are the workloads that both sides can run; `missing` says why the others are left
    out.

    `plans` and `machines` are keyed by the name of the side.
    """

    run_id: str
    host: Host
    plans: Mapping[str, Plan]
    machines: Mapping[str, Machine]
    entries: Mapping[str, Entry]
    missing: Mapping[str, str]

    def template(self, side: Side, workload: str) -> Record:
        """The template for the side's records of this workload."""
        blank = template(self.plans[side.name], self.machines[side.name], self.entries[workload], self.run_id)
        return dataclasses.replace(blank, techniques=side.label)


def match(
    homes: Sequence[Home],
    specs: Sequence[WorkloadSpec],
    device: str | None,
    protocol: Protocol,
    *,
    stored: Stored | None,
    seed: int,
    run_id: str,
    same: Sequence[str] = SAME,
) -> Matched:
    """Find out what both sides can run, and make the checkpoints that they start from. `homes` are those of base and
    head, or of the head alone if the base is `stored`.

    Raises ValueError for a workload that neither side has, and for a technique that cannot be measured here.
    """
    where = device or homes[0].fork_server.run("harness.preparation.machine:default_device", {}, TASK_TIMEOUT_S)
    facts = {home.side.name: device_facts(home.fork_server, where) for home in homes}
    here = host(where, facts["head"])
    machines = {
        home.side.name: describe_machine(
            home.fork_server, where, facts[home.side.name], folder=home.checkout, peaks=False
        )
        for home in homes
    }
    protocol = protocol.on(where)
    plans = {home.side.name: _plan(home.side, specs, where, protocol, seed) for home in homes}
    corpora = {source: open_corpus(*source) for source in {spec.source for spec in specs}}
    entries: dict[str, Entry] = {}
    missing: dict[str, str] = {}
    for spec in specs:
        # Another interpreter may have another standard library, so this one must read the text first.
        by_kin = sorted(homes, key=lambda home: home.side.python != sys.executable)
        found = {home.side.name: _entry(home, spec, corpora[spec.source]) for home in by_kin}
        if stored is not None:
            other = stored.differences(machines["head"])
            found["base"] = "; ".join(other) or stored.entry(spec, corpora[spec.source], protocol)
        reason = _why_missing(found, same)
        if reason:
            missing[spec.name] = reason
        elif isinstance(found["head"], Entry):
            entries[spec.name] = found["head"]
            _check(homes, found["head"], here)
    return Matched(
        run_id=run_id,
        host=here,
        plans=plans,
        machines=machines if stored is None else machines | {"base": stored.machine},
        entries=entries,
        missing=missing,
    )


def _plan(side: Side, specs: Sequence[WorkloadSpec], device: str, protocol: Protocol, seed: int) -> Plan:
    compositions = (side.techniques,) if side.techniques else ()
    return Plan(
        name=SLOWED if side.slowdown else COUNTED,
        workloads=tuple(specs),
        compositions=compositions,
        device=device,
        repetitions=1,
        seed=seed,
        protocol=protocol,
    )


def _entry(home: Home, spec: WorkloadSpec, corpus: Corpus) -> Entry | str:
    """The workload as the side builds it, or why it cannot."""
    try:
        return entry(home.fork_server, spec, corpus)
    except ValueError as error:
        return str(error)


def _why_missing(found: Mapping[str, Entry | str], same: Sequence[str]) -> str | None:
    """Why the two cannot be compared, None if they can. Raises ValueError if neither side has the workload."""
    failures = {name: item for name, item in found.items() if isinstance(item, str)}
    if len(failures) == len(found):
        raise ValueError(failures["base"])
    if failures:
        return "; ".join(f"{name} does not have it: {reason}" for name, reason in failures.items())
    values = {field: {name: getattr(item, field) for name, item in found.items()} for field in same}
    differences = [
        f"{field.replace('_', ' ')} is {shown['base']} in base and {shown['head']} in head"
        for field, shown in values.items()
        if shown["base"] != shown["head"]
    ]
    return f"the sides do not do the same work: {'; '.join(differences)}" if differences else None


def _check(homes: Sequence[Home], entry: Entry, here: Host) -> None:
    """Make what the techniques start from. Raises ValueError for techniques that cannot be measured on this
    workload."""
    for home in homes:
        chosen = compose(home.side.techniques)
        named = f"{home.side.name} technique {home.side.label!r}"
        reason = unmet(chosen, here, entry.spec.phase)
        if reason:
            raise ValueError(f"{named} cannot run on {entry.spec.name}: {reason}")
        if any(Change.BATCH_SIZE in item.changes for item in chosen):
            raise ValueError(f"{named} chooses its own batch: use `trainpace run` for it")
        count = ranks(chosen, here).replicas
        if entry.batch % count:
            raise ValueError(f"batch {entry.batch} does not divide over {count} ranks: give a multiple of {count}")
        taught = [name for name in home.side.techniques if techniques()[name].pretrained]
        if taught or entry.spec.phase is Phase.FINETUNE:
            pretrain(entry, taught, here.device, home.fork_server, lambda: None)
