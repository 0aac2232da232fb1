"""What fits, as maps and sentences, for both the terminal and the page."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.spec import Phase
from harness.preparation.fitting import Fit, Room
from harness.preparation.pacing import BOUNDS
from reports.wording import quantity

MOST_COLUMNS = 8


class State(StrEnum):
    """The state of a cell. Predictions for GPUs may be off, so for a range of batches only trying can tell."""

    FITS = "fits"
    MAY_FIT = "may fit"
    DOES_NOT_FIT = "does not fit"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    state: State


@dataclass(frozen=True, slots=True)
class Line:
    """A composition: its cells, with a note on the parts of its memory, or why they are unknown."""

    techniques: str
    cells: tuple[Cell, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Map:
    """Compositions against batches of one workload, or against several workloads."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def groups(found: Sequence[Fit]) -> list[tuple[Room, list[list[Fit]]]]:
    """The fits of each room, grouped by workload."""
    return [
        (room, [list(group) for _, group in itertools.groupby(fits, key=lambda item: id(item.entry))])
        for room, fits in ((room, list(fits)) for room, fits in itertools.groupby(found, key=lambda item: item.room))
    ]


def name(item: Fit) -> str:
    """The workload, with the length of its samples if they have one."""
    sequence = item.entry.sequence
    return f"{item.entry.spec.name} at {sequence} tokens" if sequence else item.entry.spec.name


def by_batch(group: Sequence[Fit]) -> Map:
    """The memory of one workload's compositions, batch by batch, and the largest batch that fits."""
    shown, timed = batches(group), any(item.pace.step_time_s for item in group)
    lines = tuple(
        Line(
            item.label,
            (*(_at(item, batch) for batch in shown), _most(item), *([_step(item)] if timed else [])),
            _note(item),
        )
        for item in group
    )
    columns = (*(f"batch {batch}" for batch in shown), "largest batch")
    return Map(name(group[0]), (*columns, f"step, batch {group[0].batch}") if timed else columns, lines)


def by_workload(each: Sequence[Sequence[Fit]]) -> Map:
    """The largest batch of every composition on several workloads."""
    lines = tuple(Line(column[0].label, tuple(map(_largest, column)), "") for column in zip(*each, strict=True))
    return Map("Largest batch", tuple(name(group[0]) for group in each), lines)


def answer(group: Sequence[Fit]) -> str:
    """Whether the workload fits as it is, or else what makes it fit. The first of the group is plain training."""
    plain, batch, room = group[0], group[0].batch, group[0].room
    what, size = f"{name(plain)}, batch {batch}", plain.peak_bytes(batch)
    if size is None:
        return f"{what}: plain training is unknown: {plain.reason}."
    taken = f"{quantity.memory(size)}, {quantity.memory(room.free_bytes)} free"
    state = _state(plain, batch)
    if state is State.FITS:
        return f"{what} fits as it is ({taken}), up to batch {plain.largest_batch()}."
    helping = sorted(
        (item for item in group[1:] if item.fits(batch)), key=lambda item: (len(item.changes), item.peak_bytes(batch))
    )
    said = f"{what} {state} as it is ({taken})"
    if helping:
        return f"{said}. It fits under {quantity.several([f'{item.label} ({_changes(item)})' for item in helping], 3)}."
    if state is State.MAY_FIT:
        return f"{said}: only trying it will tell.{_smaller(group)}"
    perhaps = [item.label for item in group[1:] if _state(item, batch) is State.MAY_FIT]
    if perhaps:
        return f"{said}. It may fit under {quantity.several(perhaps)}.{_smaller(group)}"
    return f"{said}, nor under any technique whose memory is known.{_smaller(group)}"


def race(group: Sequence[Fit]) -> str | None:
    """The command that finds the fastest of the compositions that fit; None if there is no choice."""
    plain = group[0]
    fitting = [item for item in group[1:] if item.fits(plain.batch)]
    if plain.fits(plain.batch) or len(fitting) < 2:
        return None
    spec = plain.entry.spec
    options = {
        "--model": spec.model,
        "--phase": None if spec.phase is Phase.PRETRAIN else spec.phase.value,
        "--batch": plain.batch,
        "--sequence": spec.sequence,
        "--data": spec.corpus,
        "--text-column": spec.text_column,
        "--label-column": spec.label_column,
    }
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    techniques = [word for item in fitting for word in ("--technique", item.label)]
    return shlex.join(["trainpace", "run", *words, *techniques])


def pace(group: Sequence[Fit]) -> list[str]:
    """How long a step of plain training takes at the workload's own batch; empty if unknown."""
    plain = group[0]
    if plain.pace.step_time_s is None or plain.pace.interval_s is None:
        return []
    low, high = (quantity.duration(bound) for bound in plain.pace.interval_s)
    rate = f", {quantity.rate(plain.tokens_per_s)} tokens" if plain.tokens_per_s else ""
    step = quantity.duration(plain.pace.step_time_s)
    what = "a pass without techniques" if plain.entry.spec.phase is Phase.INFER else "a step of plain training"
    return [f"{name(plain)}, batch {plain.batch}: {what} takes about {step} ({low} to {high}{rate}). {BOUNDS}"]


def checked(found: Sequence[Fit]) -> list[str]:
    """The results of training just below and just above each limit."""
    return [f"{name(item)}, {item.label}: {_outcome(item)}" for item in found if item.checked]


def _outcome(item: Fit) -> str:
    assert item.checked
    if item.checked.reason:
        return f"not checked: {item.checked.reason}"
    parts = []
    if item.checked.ran:
        batch, came = item.checked.ran
        parts.append(f"batch {batch} {'trained' if came else 'did NOT train, though it should fit'}")
    if item.checked.refused:
        batch, came = item.checked.refused
        parts.append(f"batch {batch} {'did not' if came else 'trained TOO, though it should not fit'}")
    return ", ".join(parts)


def _smaller(group: Sequence[Fit]) -> str:
    batch, best = max((item.largest_batch() or 0, item.label) for item in group)
    return f" The largest batch is {batch}, under {best}." if batch else ""


def _changes(item: Fit) -> str:
    return f"changes {', '.join(item.changes)}" if item.changes else "does not change what is learned"


def batches(group: Sequence[Fit]) -> list[int]:
    """The largest powers of two up to the first that fits under no composition, and the workload's own batch."""
    largest = max((item.may_fit_up_to() or 0 for item in group), default=0)
    powers = [1 << exponent for exponent in range((2 * largest or 1).bit_length())]
    return sorted({*powers[-MOST_COLUMNS + 1 :], group[0].batch})


def _state(item: Fit, batch: int) -> State:
    if item.peak_bytes(batch) is None:
        return State.UNKNOWN
    return {True: State.FITS, False: State.DOES_NOT_FIT, None: State.MAY_FIT}[item.fits(batch)]


def _at(item: Fit, batch: int) -> Cell:
    size = item.peak_bytes(batch)
    if size is None:
        return Cell("-" if item.growths else quantity.UNKNOWN, State.UNKNOWN)
    return Cell(quantity.memory(size), _state(item, batch))


def _largest(item: Fit) -> Cell:
    batch, most = item.largest_batch(), item.may_fit_up_to()
    if batch is None or most is None:
        return Cell(quantity.UNKNOWN, State.UNKNOWN)
    text = f"{batch} to {most}" if most > batch else str(batch)
    return Cell(text, _state(item, item.batch))


def _most(item: Fit) -> Cell:
    """The largest batch, for the map by batch."""
    found = _largest(item)
    return found if found.state is State.UNKNOWN else Cell(found.text, State.FITS)


def _step(item: Fit) -> Cell:
    """How long a step takes at the workload's own batch, if that is known."""
    if item.pace.step_time_s is None:
        return Cell(quantity.UNKNOWN, State.UNKNOWN)
    return Cell(quantity.duration(item.pace.step_time_s), State.FITS)


def _note(item: Fit) -> str:
    """The parts of the memory at the workload's batch, and the module that takes most; else why it is unknown."""
    if item.reason:
        return item.reason
    parts = sorted(item.kinds.items(), key=lambda part: -part[1])
    told = ", ".join(f"{quantity.memory(size)} {kind.replace('_', ' ')}" for kind, size in parts if size)
    module, most = max(item.modules.items(), key=lambda part: part[1], default=("", 0))
    return f"{told}; most in {module or 'no module'}, {quantity.memory(most)}"
