"""What fits where, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from harness.preparation.fitting import Fit, Room
from reports.text import listing
from reports.wording import fits, quantity
from reports.wording.fits import Map, State

MARKS = {State.FITS: "", State.MAY_FIT: " ?", State.DOES_NOT_FIT: " x", State.UNKNOWN: ""}


def render(found: Sequence[Fit]) -> str:
    """A map for each room, with sentences about it below."""
    parts = [_room(room, each) for room, each in fits.groups(found)]
    checks = fits.checked(found)
    if checks:
        parts.append("\n".join(["Checked by training within that memory:", *(f"  {line}" for line in checks)]))
    return "\n\n".join(parts)


def _room(room: Room, each: Sequence[Sequence[Fit]]) -> str:
    shown = fits.by_batch(each[0]) if len(each) == 1 else fits.by_workload(each)
    lines = [f"{room.name}, {quantity.memory(room.free_bytes)} free: {shown.title}", "", _table(shown)]
    if any(cell.state is State.DOES_NOT_FIT for line in shown.lines for cell in line.cells):
        lines.append("x: does not fit" + ("" if len(each) == 1 else " at its own batch"))
    if any(cell.state is State.MAY_FIT for line in shown.lines for cell in line.cells):
        lines.append("?: only trying it will tell; predictions for GPUs have not been checked on one yet")
    lines += ["", *(fits.answer(group) for group in each)]
    races = [command for group in each if (command := fits.race(group))]
    lines += [line for group in each for line in fits.pace(group)]
    if races:
        lines += ["To find out which of them is fastest:", *(f"  {command}" for command in races)]
    lines += _unknown(each)
    return "\n".join(lines)


def _unknown(each: Sequence[Sequence[Fit]]) -> list[str]:
    """What is unknown and why, with the workloads unless it holds for all."""
    found: dict[tuple[str, str], list[str]] = {}
    for group in each:
        for item in group:
            if item.reason:
                found.setdefault((item.label, item.reason), []).append(fits.name(item))
    return [
        f"{label} is unknown{'' if len(names) == len(each) else f' for {quantity.several(names)}'}: {reason}"
        for (label, reason), names in found.items()
    ]


def _table(shown: Map) -> str:
    return listing.aligned(
        [
            {"technique": line.techniques}
            | {column: cell.text + MARKS[cell.state] for column, cell in zip(shown.columns, line.cells, strict=True)}
            for line in shown.lines
        ]
    )
