"""The measuring core: the arms of a heat start one at a time, take turns, and prove what work they did.

The caller (a sweep, an A/B comparison or anything else that times arms) chooses the arms, and the fork server of the
environment that each one comes from. Only one arm is ever active, even during builds and warm-ups; the others block on
their channels.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.host import Host
from bench.spec import Protocol, Trial
from harness.heats.arm import Arm
from harness.message import Message
from harness.processes.fork_server import ForkServer
from harness.telemetry.conditions import Reading
from harness.telemetry.gpus import Gpus

CERTIFIED_AT_ONCE = 2
"""How many replays run at the same time on a CPU, each with its share of the threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """What the arms that are compared with each other have in common.

    `request` lacks only what differs between arms. `gpus` are all that the host has. `lead_steps` is how many steps of
    a turn do not count, None if not known yet. `draw` decides every order. `show` receives the label of an arm, or an
    empty one, and what is being done. `elsewhere` reads the counters of other hosts by name.
    """

    host: Host
    protocol: Protocol
    gpus: Gpus
    request: Message
    lead_steps: int | None
    draw: random.Random
    show: Callable[[str, str], object] = lambda label, phase: None
    elsewhere: Callable[[Collection[str]], Mapping[str, Reading]] = lambda hosts: {}

    @property
    def certified_at_once(self) -> int:
        """How many arms replay at the same time. On a GPU each would need memory that the others have taken."""
        return CERTIFIED_AT_ONCE if self.host.device == "cpu" else 1

    def arm(self, trial: Trial, cache: Path, *, toolchain: Path | None = None, **own: Any) -> Arm:
        """A new arm, whose request also has its `own` fields. It compiles into the folder `cache`, which starts as a
        copy of `toolchain` if it does not exist yet."""
        is_cold = not cache.exists()
        if is_cold and toolchain is not None and toolchain.exists():
            shutil.copytree(toolchain, cache)
        cache.mkdir(parents=True, exist_ok=True)
        environment = {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
        request = self.request | {"techniques": list(trial.techniques), "environment": environment} | own
        return Arm(trial, request=request, protocol=self.protocol, host=self.host, is_cold=is_cold)

    def start(self, arm: Arm, fork_server: ForkServer, parked: Sequence[Arm] = (), *, window: bool = False) -> None:
        """Start the arm and warm it up while the others are parked; with a `window`, telemetry follows."""
        arm.start(fork_server)
        if window:
            arm.sustain(self.gpus)
        for other in parked:
            other.check_parked()
        time.sleep(self.protocol.pause_s)

    def certify(self, arms: Sequence[Arm], *, replay: bool) -> None:
        """Ask every arm for its certificate, end it, and compare its work with that of the first, the reference.

        The reference is asked last, when the memory of all others is free again. Further processes of an arm do not
        replay. Nothing is timed here except how long ranks wait for each other: arms of one rank replay at the same
        time, those that took longest to start first, because compilation leaves a core idle.
        """
        reference = arms[0]
        steps = reference.replay_steps if replay else 0
        rivals = sorted(arms[1:], key=_begins_early)
        beside = [arm for arm in rivals if arm.world_size == 1]
        at_once = min(self.certified_at_once, len(beside))
        pool = ThreadPoolExecutor(max(1, at_once))
        try:
            for certified in as_completed([pool.submit(_certify, arm, steps, at_once) for arm in beside]):
                self.show(certified.result().trial.label, "certificate")
        finally:
            # After an interrupt nobody wants to wait for replays that have not begun.
            pool.shutdown(wait=False, cancel_futures=True)
        for arm in (*(arm for arm in rivals if arm.world_size > 1), reference):
            self.show(arm.trial.label, "certificate")
            _certify(arm, steps)
        for arm in arms:
            # A further process of an arm has not replayed, so there is nothing to compare.
            if not arm.trial.copy:
                arm.hold_against(reference)


def own_cache(folder: Path, identity: str) -> Path:
    """The compile cache of this identity, hashed because it could be too long for a folder name."""
    return folder / hashlib.sha256(identity.encode()).hexdigest()[:16]


def _begins_early(arm: Arm) -> tuple[bool, float]:
    return not arm.trial.copy, -(arm.measurement.first_step_s or 0.0)


def _certify(arm: Arm, steps: int, at_once: int = 1) -> Arm:
    arm.attest(0 if arm.trial.copy else steps, at_once)
    arm.end()
    return arm
