"""Rounds: the arms of a heat take turns of a few contiguous steps each, one arm at a time, round after round.

The pace of warm, contiguous training is what counts. The first steps of a turn find the arm's weights, code and threads
cold, because another arm has just used the caches: how many of them are slower is derived from the steps of all arms
together. Rounds in which something else used what the arms need are detected without looking at any step time, left out
and replaced.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from harness.heats.arm import Arm
from harness.heats.heat import Heat
from harness.telemetry import conditions
from harness.telemetry.conditions import Reading
from harness.timing.turns import LONG_STEP_S, cold_steps, round_count, spread, turn_steps

LEAD_STEPS = 2
"""The uncounted steps added to a turn as long as their real number is not known."""

HOPELESS_WATCHES = 3
"""A repetition is given up after so many watches if none was undisturbed."""


@dataclass(slots=True, kw_only=True)
class Rounds:
    """How the rounds of some arms went: `dropped` lists the rounds that do not count, `disturbances` why, in words.

    `unseen` are kinds of disturbance that this machine does not show.
    """

    taken: int = 0
    dropped: list[int] = field(default_factory=list)
    disturbances: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def is_disturbed(self, least: int) -> bool:
        """Whether too few rounds are left to count."""
        return bool(self.dropped) and self.taken - len(self.dropped) < least


def run_rounds(heat: Heat, arms: Sequence[Arm], *, alike: bool = False) -> Rounds:
    """Let all living arms take turns, as many as each can fit in the protocol's share of time.

    The first arm, which the others are compared with, takes part in all rounds; a slow arm sits out some. Arms that are
    `alike` take the same number of steps in every round.
    """
    alive = [arm for arm in arms if arm.alive]
    if not alive:
        return Rounds()
    step_s = statistics.fmean(arm.step_s for arm in alive) if alike else None
    counts = [round_count(heat.protocol, step_s or arm.step_s) for arm in alive]
    return take_turns(heat, alive, [min(counts[0], count) for count in counts], step_s=step_s)


def take_turns(heat: Heat, arms: Sequence[Arm], counts: Sequence[int], *, step_s: float | None = None) -> Rounds:
    """Every living arm takes its count of turns, evenly spread over the rounds; the order in each round is drawn.

    Turns are planned by `step_s`, or by each arm's own step time. If the heat does not know how many steps of a turn do
    not count, the number is found here and stored in each arm.
    """
    protocol, total = heat.protocol, max(counts)
    slots = [spread(count, total) for count in counts]
    for arm in arms:
        planned_s = step_s or arm.step_s
        known = LEAD_STEPS if heat.lead_steps is None else heat.lead_steps
        arm.lead_steps = 0 if planned_s > LONG_STEP_S else known
        arm.turn_steps = arm.lead_steps + turn_steps(protocol, planned_s)
    # Ranks run on the first devices: activity on the others does not affect them.
    gpus = heat.gpus.first(max(arm.world_size for arm in arms))
    found, waiting, watched = Rounds(), deque(range(total)), list[int]()
    spare, watches, undisturbed = int(protocol.spare * total), 0, 0
    hosts = {host for arm in arms for host in arm.measurement.rank_hosts}
    before, others_before = conditions.read(gpus), heat.elsewhere(hosts)
    ranks = sum(arm.world_size for arm in arms if arm.alive)
    while waiting and any(arm.alive for arm in arms):
        slot = waiting.popleft()
        heat.show("", f"round {found.taken + 1}/{found.taken + 1 + len(waiting)}")
        _round(heat, [arm for arm, own in zip(arms, slots, strict=True) if slot in own], found.taken)
        watched.append(slot)
        found.taken += 1
        after = conditions.read(gpus)
        if waiting and after.raw_s - before.raw_s < protocol.watch_s:
            continue
        others_after = heat.elsewhere(hosts)
        disturbances = conditions.disturbances(before, after, arms=ranks) + elsewhere(others_before, others_after)
        found.unseen = conditions.unseen(before, after, heat.host.device)
        if disturbances:
            found.dropped += range(found.taken - len(watched), found.taken)
            found.disturbances += disturbances
            waiting.extend(watched[:spare])
            spare -= len(watched[:spare])
        watches, undisturbed = watches + 1, undisturbed + (not disturbances)
        if not undisturbed and watches >= HOPELESS_WATCHES:
            break
        before, others_before, watched = after, others_after, []
    if heat.lead_steps is None:
        _find_lead([arm for arm in arms if arm.lead_steps], found.dropped)
    return found


def elsewhere(before: Mapping[str, Reading], after: Mapping[str, Reading]) -> list[str]:
    """Disturbances on other hosts, in words that name them. A host that is gone has taken its arms along."""
    return [
        f"on {host}: {disturbance}"
        for host, reading in after.items()
        if host in before
        for disturbance in conditions.disturbances(before[host], reading, arms=0)
    ]


def _find_lead(arms: Sequence[Arm], dropped: Collection[int]) -> None:
    lead_steps = cold_steps(_turns(arms, dropped))
    for arm in arms:
        arm.lead_steps = lead_steps


def _round(heat: Heat, arms: Collection[Arm], index: int) -> None:
    """One turn of each arm. A short pause between two arms lets the threads of the one just parked stop spinning."""
    for arm in heat.draw.sample(list(arms), len(arms)):
        arm.check_parked()
        time.sleep(heat.protocol.pause_s)
        arm.turn(index)


def _turns(arms: Sequence[Arm], dropped: Collection[int]) -> list[list[float]]:
    """The step times of every turn of the arms, except in dropped rounds."""
    turns: list[list[float]] = []
    for arm in arms:
        by_round: dict[int, list[float]] = {}
        for index, time_s in zip(arm.measurement.round_index, arm.measurement.round_step_times_s, strict=True):
            by_round.setdefault(index, []).append(time_s)
        turns += [times_s for index, times_s in by_round.items() if index not in dropped]
    return turns
