"""One repetition of one workload on two sides: fresh processes, each from its side's fork server, taking turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.spec import Trial, WorkloadSpec
from harness.ab.sides import Home
from harness.ab.stored import held_against
from harness.heats.arm import Arm
from harness.heats.heat import Heat, own_cache
from harness.heats.rounds import Rounds, run_rounds
from harness.record import Record, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one side's arm showed besides its record: how many modules of its checkout ran, modules that hid them, and
    the share by which a brake made its steps longer."""

    modules: int = 0
    strays: tuple[str, ...] = ()
    held_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One repetition of one workload.

    `disturbed` says, without regard to the times, what makes them unusable; `unseen` says which kinds of disturbance
    this machine does not show. `together` is False for a stored base: it did not take turns with the head, and the
    number of its steps is what it was.
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

    @property
    def allocated_bytes(self) -> tuple[int, int] | None:
        """The most that tensors of base and head took at once in their replays on a CPU, to the byte. None if one was
        not replayed, or has several ranks, whose communication depends on timing."""
        sides = (self.base, self.head)
        if not self.together or any(side.device != "cpu" or side.world_size > 1 for side in sides):
            return None
        base, head = (side.measurement.allocated_peak_bytes for side in sides)
        return None if base is None or head is None else (base, head)


def measure_pair(
    heat: Heat,
    spec: WorkloadSpec,
    homes: Sequence[Home],
    records: Mapping[str, Record],
    *,
    caches: Path,
    replay: bool,
    stored: Record | None = None,
) -> Pair:
    """Measure one repetition of base and head, or of the head alone if the base's is `stored`.

    `homes` are those of the measured sides; which of them starts first is drawn. `records` are the templates for the
    records of each side, by its name. `caches` is a folder for compile caches.
    """
    arms = {home.side.name: _arm(heat, spec, home, caches) for home in homes}
    for home in heat.draw.sample(list(homes), len(homes)):
        heat.start(arms[home.side.name], home.fork_server)
    found = _rounds(heat, list(arms.values()))
    seen = {home.side.name: _seen(arms[home.side.name], home) for home in homes}
    heat.certify(list(arms.values()), replay=replay)
    measured = {name: arm.record(records[name]) for name, arm in arms.items()}
    if stored is not None:
        measured = {"base": stored, "head": held_against(stored, measured["head"])}
    return Pair(
        workload=spec.name,
        repetition=records["head"].repetition,
        base=measured["base"],
        head=measured["head"],
        base_seen=seen.get("base", Seen()),
        head_seen=seen["head"],
        disturbed=tuple(found.disturbances),
        unseen=tuple(found.unseen),
        together=stored is None,
    )


def _arm(heat: Heat, spec: WorkloadSpec, home: Home, caches: Path) -> Arm:
    side = home.side
    trial = Trial(workload=spec, techniques=side.techniques, device=heat.host.device)
    return heat.arm(trial, own_cache(caches / side.name, spec.name), slowdown=side.slowdown)


def _rounds(heat: Heat, arms: Sequence[Arm]) -> Rounds:
    """Both sides take turns. If one fails, the repetition does not count, and disturbances do not matter."""
    if not all(arm.alive for arm in arms):
        return Rounds()
    found = run_rounds(heat, arms, alike=True)
    return found if all(arm.alive for arm in arms) else Rounds()


def _seen(arm: Arm, home: Home) -> Seen:
    found = arm.account(home.whereabouts())
    if arm.status is not Status.OK:
        return Seen()
    return Seen(modules=found["modules"], strays=tuple(found["strays"]), held_share=found["held_share"])
