"""What fits where: memory by batch of workloads under techniques, on this machine or on cards that are not here."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.cards import Card
from bench.composition import compose, declared, ranks, unmet
from bench.corpus import open_corpus
from bench.host import CONTEXT_BYTES, Host
from bench.spec import BASELINE, WorkloadSpec
from harness.message import Message
from harness.prediction.growth import Growth, growth_of
from harness.preparation.forecast import UNSURE
from harness.preparation.machine import describe_machine
from harness.preparation.pacing import NOT_ASKED, Pace, Pacing, Show, silent
from harness.preparation.predicting import Question, predictions
from harness.preparation.prepared import Entry, device_facts, entry
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer
from harness.telemetry import cgroups

MOST_SAMPLES = 1 << 24
"""Larger batches are not considered."""

CHECK_TIMEOUT_S = 300.0

EDGE = 0.03
"""A batch predicted to take this share less than all memory must train, and one predicted to take this share more must
not."""

SCRATCH_BYTES = 48 << 20
"""Further margin for the batch that must train: the buffers into which libraries pack operands belong to no tensor.
With AVX-512 they were seen to take 11 to 43 MB whatever the batch, on other CPUs hardly anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where something is to fit: a device, and how much of its memory is free for tensors."""

    name: str
    host: Host
    free_bytes: int

    @property
    def unsure(self) -> float:
        """The factor by which predictions may be off on this kind of device."""
        return UNSURE[self.host.device]


def on_card(card: Card, gpus: int = 1) -> Room:
    """The room for a process on a card with nothing else on it."""
    host = Host(
        device="cuda",
        gpus=gpus,
        cores=cgroups.cores(),
        memory_bytes=card.memory_bytes,
        capability=card.capability,
    )
    return Room(name=card.name, host=host, free_bytes=card.memory_bytes - CONTEXT_BYTES["cuda"])


def here(host: Host, memory_bytes: int | None = None) -> Room:
    """The free room on this machine's device, limited to `memory_bytes` if given."""
    free_bytes = host.memory_bytes - CONTEXT_BYTES[host.device]
    name = "this machine's CPU" if host.device == "cpu" else "this machine's GPU"
    return Room(name=name, host=host, free_bytes=free_bytes if memory_bytes is None else min(memory_bytes, free_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The result of real training with no more memory than the room has. `ran` and `refused` are batches just below and
    just above what fits, and whether each behaved as predicted; None if there was none to try."""

    ran: tuple[int, bool] | None
    refused: tuple[int, bool] | None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A workload under a composition in a room: its memory by batch, or the `reason` why that is not known.

    `batch` is the workload's own, `growths` has one entry per rank, and a batch must be divisible by `divisor`. `kinds`
    and `modules` are the parts of the first rank's peak at the workload's batch. `changes` are those that the
    composition declares, and `pace` is how long a step takes at the workload's batch.
    """

    room: Room
    entry: Entry
    techniques: tuple[str, ...]
    changes: tuple[str, ...] = ()
    growths: tuple[Growth, ...] = ()
    divisor: int = 1
    kinds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    modules: Mapping[str, int] = dataclasses.field(default_factory=dict)
    reason: str | None = None
    checked: Checked | None = None
    pace: Pace = NOT_ASKED

    @property
    def tokens_per_s(self) -> float | None:
        """At the workload's batch; None if unknown, or if samples have no tokens."""
        if not self.pace.step_time_s or not self.entry.sequence:
            return None
        return self.batch * self.entry.sequence / self.pace.step_time_s

    @property
    def label(self) -> str:
        return "+".join(self.techniques) or BASELINE

    @property
    def batch(self) -> int:
        return self.entry.batch

    def peak_bytes(self, batch: int) -> int | None:
        """Peak bytes on one device; None if unknown, or if the batch is not divisible."""
        if not self.growths or batch % self.divisor:
            return None
        peaks = [growth.peak_bytes(batch) for growth in self.growths]
        # Ranks share the machine's memory, but each has its own GPU.
        return sum(peaks) if self.room.host.device == "cpu" else max(peaks)

    def fits(self, batch: int) -> bool | None:
        """Whether the batch fits; None if it may or may not."""
        size, unsure = self.peak_bytes(batch), self.room.unsure
        if size is None:
            return None
        if size * unsure <= self.room.free_bytes:
            return True
        return False if size > unsure * self.room.free_bytes else None

    def largest_batch(self) -> int | None:
        """The largest batch that certainly fits, 0 if none does; None if unknown."""
        return self.largest_within(self.room.free_bytes / self.room.unsure)

    def may_fit_up_to(self) -> int | None:
        """The batch above which certainly none fits."""
        return self.largest_within(self.room.free_bytes * self.room.unsure)

    def largest_within(self, free_bytes: float) -> int | None:
        """The largest batch predicted to take no more than this."""
        if not self.growths:
            return None
        multiples = range(self.divisor, MOST_SAMPLES, self.divisor)
        return self.divisor * bisect_right(multiples, free_bytes, key=lambda batch: self.peak_bytes(batch) or 0)


def fit(
    specs: Sequence[WorkloadSpec],
    compositions: Sequence[tuple[str, ...]],
    rooms: Sequence[Room],
    fork_server: ForkServer,
    seed: int = 0,
) -> list[Fit]:
    """Each composition of each workload in each room. Raises ValueError for a workload that cannot be built."""
    packages = fork_server.run("harness.telemetry.surroundings:software", {}, 60.0)["packages"]
    corpora = {source: open_corpus(*source) for source in {spec.source for spec in specs}}
    # Several workloads at once: while one finishes its last process, the next has begun.
    with ThreadPoolExecutor(cgroups.cores()) as pool:
        entries = list(pool.map(lambda spec: entry(fork_server, spec, corpora[spec.source]), specs))
        # Large ones first, because during the very last one the other cores are idle.
        order = sorted(entries, key=lambda each: -(each.parameters or 0))
        made: list[Fit] = []
        for room in rooms:
            question = Question(task="grow_arms", host=room.host, seed=seed, packages=packages)
            ask = functools.partial(_of_entry, room, compositions, question, fork_server)
            found = {each.spec: fits for each, fits in zip(order, pool.map(ask, order), strict=True)}
            made += itertools.chain.from_iterable(found[each.spec] for each in entries)
    return made


def _of_entry(
    room: Room,
    compositions: Sequence[tuple[str, ...]],
    question: Question,
    fork_server: ForkServer,
    each: Entry,
) -> list[Fit]:
    reasons = {names: unmet(compose(names), room.host, each.spec.phase) for names in compositions}
    possible = [names for names in compositions if reasons[names] is None]
    answers = dict(zip(possible, predictions(question, each, possible, fork_server), strict=True))
    return [_made(room, each, names, answers.get(names) or {"reason": reasons[names]}) for names in compositions]


def _made(room: Room, each: Entry, names: tuple[str, ...], answer: Message) -> Fit:
    changes = tuple(declared(compose(names)))
    if "reason" in answer:
        return Fit(room=room, entry=each, techniques=names, changes=changes, reason=answer["reason"])
    growths = tuple(map(growth_of, answer["ranks"]))
    return Fit(
        room=room,
        entry=each,
        techniques=names,
        changes=changes,
        growths=growths,
        divisor=answer["divisor"],
        kinds=answer["kinds"],
        modules=answer["modules"],
    )


def with_paces(found: Sequence[Fit], fork_server: ForkServer, seed: int = 0, show: Show = silent) -> list[Fit]:
    """The same fits, with the pace of a step on this machine's CPU for those that fit. `show` receives the number of
    operators of a workload that are not timed yet, before their timing begins."""
    if not found:
        return []
    machine = describe_machine(fork_server, "cpu", device_facts(fork_server, "cpu"), peaks=False)
    question = Question(task="count_operators", host=found[0].room.host, seed=seed, packages=machine.packages)
    pacing = Pacing(question, machine.machine_id, fork_server, show)
    made: list[Fit] = []
    for _, items in itertools.groupby(found, key=lambda item: id(item.entry)):
        group = list(items)
        asked = [item.techniques for item in group if item.fits(item.batch)]
        told = dict(zip(asked, pacing.of(group[0].entry, asked), strict=True))
        made += [
            dataclasses.replace(
                item, pace=told.get(item.techniques, Pace(reason=item.reason or "it does not fit at its own batch"))
            )
            for item in group
        ]
    return made


def check(found: Fit, fork_server: ForkServer, seed: int = 0, show: Callable[[Fit], object] = silent) -> Fit:
    """Train on both sides of the edge, in processes limited to the room's memory. `show` is called before."""
    if found.reason:
        return found
    if ranks(compose(found.techniques), found.room.host).count > 1:
        return _checked(found, reason="several ranks share a limit only as a group")
    show(found)
    free_bytes = found.room.free_bytes
    inside = found.largest_within((1 - EDGE) * free_bytes - SCRATCH_BYTES) or 0
    outside = found.divisor + (found.largest_within((1 + EDGE) * free_bytes) or 0)
    try:
        ran = (inside, _runs(found, inside, fork_server, seed)) if inside else None
        refused = (outside, not _runs(found, outside, fork_server, seed))
    except (ArmFailed, ValueError) as failure:
        return _checked(found, reason=str(failure))
    return dataclasses.replace(found, checked=Checked(ran=ran, refused=refused))


def _checked(found: Fit, reason: str) -> Fit:
    return dataclasses.replace(found, checked=Checked(ran=None, refused=None, reason=reason))


def _runs(found: Fit, batch: int, fork_server: ForkServer, seed: int) -> bool:
    asked = {
        "request": found.entry.request,
        "techniques": list(found.techniques),
        "seed": seed,
        # At least two samples: layers that look across a batch fail on one.
        "batches": [2 * found.divisor, batch],
        "limit_bytes": found.room.free_bytes,
    }
    answer: bool = fork_server.run("harness.processes.limited:runs_within", asked, CHECK_TIMEOUT_S)
    return answer
