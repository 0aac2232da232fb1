"""One repetition of one workload on two sides: fresh processes, from a nursery each, stepped in turn."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.host import Host
from bench.spec import Protocol, Trial, WorkloadSpec
from harness.channel import Message
from harness.entrant import Entrant
from harness.gpus import Gpus
from harness.record import Record, Status
from harness.sides import Home
from harness.stored import held_against
from harness.turns import Rounds, run_rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one side's arm has shown beside its record: modules of its checkout that ran, those that hid them, and by
    what share a brake made its steps longer."""

    modules: int = 0
    strays: tuple[str, ...] = ()
    held_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bout:
    """One repetition of one workload.

    `disturbed` says, without regard to the times, what makes them unfit, and `unseen` what of the kind the machine does
    not show. A stored base was not stepped in turn with the head, and its steps are as many as they were: then
    `together` is False.
    """

    workload: str
    repetition: int
    base: Record
    head: Record
    base_seen: Seen
    head_seen: Seen
    disturbed: tuple[str, ...]
    unseen: tuple[str, ...] = ()
    together: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """What the repetitions of one workload share. `request` lacks what tells sides and repetitions apart; `records` are
    what the records of each side start as. `lead_steps` is how many steps of a turn are known not to count, if that is
    known."""

    spec: WorkloadSpec
    host: Host
    protocol: Protocol
    gpus: Gpus
    request: Message
    records: Mapping[str, Record]
    compile_caches: Path
    lead_steps: int | None = None


def duel(
    ring: Ring,
    homes: Sequence[Home],
    repetition: int,
    draw: random.Random,
    *,
    replay: bool,
    stored: Record | None = None,
) -> Bout:
    """Measure one repetition of base and head, or of the head alone where the base's is `stored`.

    `homes` are those of the sides that are measured; which of them starts first is drawn.
    """
    seed = draw.randrange(2**31)
    entrants = {home.side.name: _entrant(ring, home, seed) for home in homes}
    for home in draw.sample(list(homes), len(homes)):
        entrants[home.side.name].start(home.nursery)
        time.sleep(ring.protocol.pause_s)
    found = _rounds(ring, list(entrants.values()), draw)
    seen = {home.side.name: _seen(entrants[home.side.name], home) for home in homes}
    reference = entrants[homes[0].side.name]
    records = {}
    for name, entrant in entrants.items():
        entrant.certify(reference, replay=replay)
        entrant.end()
        template = dataclasses.replace(ring.records[name], repetition=repetition, seed=seed)
        records[name] = entrant.record(template)
    if stored is not None:
        records = {"base": stored, "head": held_against(stored, records["head"])}
    return Bout(
        workload=ring.spec.name,
        repetition=repetition,
        base=records["base"],
        head=records["head"],
        base_seen=seen.get("base", Seen()),
        head_seen=seen["head"],
        disturbed=tuple(found.disturbances),
        unseen=tuple(found.unseen),
        together=stored is None,
    )


def _entrant(ring: Ring, home: Home, seed: int) -> Entrant:
    side = home.side
    trial = Trial(workload=ring.spec, techniques=side.techniques, device=ring.request["device"])
    cache = ring.compile_caches / side.name / hashlib.sha256(ring.spec.name.encode()).hexdigest()[:16]
    is_cold = not cache.exists()
    cache.mkdir(parents=True, exist_ok=True)
    request = ring.request | {
        "techniques": list(side.techniques),
        "seed": seed,
        "environment": {"TORCHINDUCTOR_CACHE_DIR": str(cache)},
        "slowdown": side.slowdown,
    }
    return Entrant(trial, request=request, protocol=ring.protocol, host=ring.host, is_cold=is_cold)


def _rounds(ring: Ring, entrants: Sequence[Entrant], draw: random.Random) -> Rounds:
    """Both sides step in turn. Where one fails the repetition will not be counted, and there is nothing to be
    disturbed."""
    if not all(entrant.alive for entrant in entrants):
        return Rounds()
    found = run_rounds(
        entrants, protocol=ring.protocol, gpus=ring.gpus, draw=draw, lead_steps=ring.lead_steps, alike=True
    )
    return found if all(entrant.alive for entrant in entrants) else Rounds()


def _seen(entrant: Entrant, home: Home) -> Seen:
    found = entrant.account(home.whereabouts())
    if entrant.status is not Status.OK:
        return Seen()
    return Seen(modules=found["modules"], strays=tuple(found["strays"]), held_share=found["held_share"])
