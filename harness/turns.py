"""Turns: the arms of a heat take a few contiguous steps each, one arm at a time, round after round.

What is counted is the pace of warm, contiguous training. The first steps of a turn find the arm's weights, code and
threads cold, because another arm has just used the caches: how many of them are longer is found from the steps
themselves, over all arms together. Rounds in which something else took what the arms need are found without a look at
any time, left out and replaced.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from bench.spec import Protocol
from harness import conditions
from harness.entrant import Entrant
from harness.gpus import Gpus

COLD_SHARE = 0.005
"""Steps at the beginning of a turn are left out until those that remain are together longer than later ones by no more
than this share."""

LEAD_STEPS = 2
"""The uncounted steps that a turn is made longer by, as long as it is not known how many it takes."""

LONG_STEP_S = 0.5
"""From this length on a step fills its caches in less than such a share of itself: it is counted, and a turn is one."""

HOPELESS_WATCHES = 3
"""So many watches, none of them undisturbed, and a repetition is given up."""


@dataclass(slots=True, kw_only=True)
class Rounds:
    """How the rounds of some arms went: `dropped` has the rounds that do not count, `disturbances` why, in words.

    `unseen` are disturbances that the machine does not show.
    """

    taken: int = 0
    dropped: list[int] = field(default_factory=list)
    disturbances: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def is_disturbed(self, least: int) -> bool:
        """Whether too few rounds are left to count."""
        return bool(self.dropped) and self.taken - len(self.dropped) < least


def turn_steps(protocol: Protocol, step_s: float) -> int:
    """Counted steps of one turn of an arm."""
    return 1 if step_s > LONG_STEP_S else max(protocol.turn_steps, math.ceil(protocol.turn_s / step_s))


def round_count(protocol: Protocol, step_s: float) -> int:
    """How many turns fit an arm's share of time: fewer for a slow arm, never under the least."""
    fitting = round(protocol.rounds_s / (step_s * turn_steps(protocol, step_s)))
    return max(protocol.rounds_min, min(protocol.rounds, fitting))


def spread(count: int, total: int) -> set[int]:
    """`count` of the numbers below `total`, evenly spaced."""
    return {(2 * turn + 1) * total // (2 * count) for turn in range(count)}


def run_rounds(
    entrants: Sequence[Entrant],
    *,
    protocol: Protocol,
    gpus: Gpus,
    draw: random.Random,
    lead_steps: int | None,
    alike: bool = False,
    show: Callable[[str], object] = lambda text: None,
) -> Rounds:
    """The turns of all arms that live, as many as the protocol's share of time allows each.

    The first of them, which the others are set against, takes part in all rounds, and a slow arm sits out some; arms
    that are `alike` take as many steps each, in every round. `gpus` are all that the host has; for the rest see
    `take_turns`.
    """
    alive = [entrant for entrant in entrants if entrant.alive]
    if not alive:
        return Rounds()
    step_s = statistics.fmean(entrant.step_s for entrant in alive) if alike else None
    counts = [round_count(protocol, step_s or entrant.step_s) for entrant in alive]
    return take_turns(
        alive,
        [min(counts[0], count) for count in counts],
        protocol=protocol,
        # Ranks run on the first devices: what goes on on the others is no concern of theirs.
        gpus=gpus.first(max(entrant.world_size for entrant in alive)),
        draw=draw,
        lead_steps=lead_steps,
        step_s=step_s,
        show=show,
    )


def take_turns(
    entrants: Sequence[Entrant],
    counts: Sequence[int],
    *,
    protocol: Protocol,
    gpus: Gpus,
    draw: random.Random,
    lead_steps: int | None,
    step_s: float | None = None,
    show: Callable[[str], object] = lambda text: None,
) -> Rounds:
    """Every living arm takes its count of turns, evenly spread over the rounds; the order in each round is drawn.

    `gpus` are those that the arms are on. `lead_steps` is how many steps of a turn are known not to count; None: that
    is found here. Each entrant has its own afterwards.
    """
    total = max(counts)
    slots = [spread(count, total) for count in counts]
    for entrant in entrants:
        planned_s = step_s or entrant.step_s
        entrant.lead_steps = 0 if planned_s > LONG_STEP_S else LEAD_STEPS if lead_steps is None else lead_steps
        entrant.turn_steps = entrant.lead_steps + turn_steps(protocol, planned_s)
    found, waiting, watched = Rounds(), deque(range(total)), list[int]()
    spare, watches, undisturbed = int(protocol.spare * total), 0, 0
    before = conditions.read(gpus)
    arms = sum(entrant.world_size for entrant in entrants if entrant.alive)
    while waiting and any(entrant.alive for entrant in entrants):
        slot = waiting.popleft()
        show(f"round {found.taken + 1}/{found.taken + 1 + len(waiting)}")
        _round([item for item, own in zip(entrants, slots, strict=True) if slot in own], found.taken, protocol, draw)
        watched.append(slot)
        found.taken += 1
        after = conditions.read(gpus)
        if waiting and after.raw_s - before.raw_s < protocol.watch_s:
            continue
        disturbances = conditions.disturbances(before, after, arms=arms)
        found.unseen = conditions.unseen(before, after, entrants[0].host.device)
        if disturbances:
            found.dropped += range(found.taken - len(watched), found.taken)
            found.disturbances += disturbances
            waiting.extend(watched[:spare])
            spare -= len(watched[:spare])
        watches, undisturbed = watches + 1, undisturbed + (not disturbances)
        if not undisturbed and watches >= HOPELESS_WATCHES:
            break
        before, watched = after, []
    if lead_steps is None:
        _find_lead([entrant for entrant in entrants if entrant.lead_steps], found.dropped)
    return found


def _find_lead(entrants: Sequence[Entrant], dropped: Collection[int]) -> None:
    lead_steps = cold_steps(_turns(entrants, dropped))
    for entrant in entrants:
        entrant.lead_steps = lead_steps


def _round(entrants: Collection[Entrant], index: int, protocol: Protocol, draw: random.Random) -> None:
    """One turn of each arm. Between two arms there is a short pause, in which the threads of the one just parked stop
    spinning."""
    for entrant in draw.sample(list(entrants), len(entrants)):
        entrant.check_parked()
        time.sleep(protocol.pause_s)
        entrant.turn(index)


def _turns(entrants: Sequence[Entrant], dropped: Collection[int]) -> list[list[float]]:
    """The step times of every turn of the arms, without those of the dropped rounds."""
    turns: list[list[float]] = []
    for entrant in entrants:
        by_round: dict[int, list[float]] = {}
        for index, time_s in zip(entrant.measurement.round_index, entrant.measurement.round_step_times_s, strict=True):
            by_round.setdefault(index, []).append(time_s)
        turns += [times_s for index, times_s in by_round.items() if index not in dropped]
    return turns


def cold_steps(turns: Sequence[Sequence[float]]) -> int:
    """How many steps at the beginning of a turn are longer because the arm's caches are cold; at most half of a turn.

    By its place in the turn, a step's excess is the median over turns of its ratio to the median of the turn's second
    half. Places are left out from the first on until the mean excess of those that are left of a turn is small.
    """
    size = min((len(times_s) for times_s in turns), default=0)
    if size < 2:
        return 0
    first = size // 2
    ratios = [[time_s / statistics.median(times_s[first:]) for time_s in times_s[:first]] for times_s in turns]
    excess = [statistics.median(column) - 1 for column in zip(*ratios, strict=True)]
    for lead in range(first):
        if sum(excess[lead:]) / (size - lead) <= COLD_SHARE:
            return lead
    return first
