"""A tuning for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bench.candidates import Candidates
from reports.text import listing
from reports.wording import ladder as wording
from reports.wording import quantity
from results.ladder import Ladder, Rung

MOST_NAMED = 6


def render(ladder: Ladder) -> str:
    """The answer, the rungs, and what was dropped."""
    lines = [wording.answer(ladder)]
    if rows := wording.climb(ladder):
        lines += ["", listing.aligned(rows)]
    lines += ["", *wording.sentences(ladder)]
    if dropped := wording.dropped(ladder):
        named = quantity.several([technique for technique, _ in dropped], MOST_NAMED)
        lines.append(f"Tried and dropped: {named}; the report says why.")
    return "\n".join(lines)


def rung(found: Rung, number: int) -> str:
    """The result of one heat of the climb, in one line."""
    tried = f"{len(found.tried)} tried beside {wording.name(found.before)}, {quantity.duration(found.seconds)}"
    gain = f" {wording.factor(found.chosen.gain)}" if found.chosen else ""
    return f"heat {number}: {wording.step(found)}{gain} ({tried})"


def outlook(workload: str, first: Sequence[str], options: Candidates, learners: Sequence[str], minutes: float) -> str:
    """What a tuning would try, and what not and why."""
    later = [name for name in options.names if name not in first]
    lines = [
        f"{workload}: {len(first)} techniques are tried first, at most {minutes:g} minutes in all",
        f"  {', '.join(first)}",
    ]
    if later:
        lines += ["then, if one of their kind helps or nothing else does:", f"  {', '.join(later)}"]
    if learners:
        lines += ["and techniques that learn differently, by the time to the same loss:", f"  {', '.join(learners)}"]
    lines += ["left out:", *(f"  {name}: {reason}" for name, reason in options.left_out.items())]
    return "\n".join(lines)
