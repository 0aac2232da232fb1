"""One built setup that takes steps: an arm times it, and replays it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from bench.setup import TrainingSetup
from bench.spec import Phase
from harness.message import Message
from harness.timing.brake import brake_for
from harness.timing.clock import clock_for
from harness.timing.feed import Batches, Taking
from harness.timing.step import infer_step, train_step


class Trainer:
    """One built setup: its optimizer (None for inference), its endless batches and its clock."""

    def __init__(
        self, setup: TrainingSetup, seed: int, slowdown: float = 0.0, *, each_sample_seeded: bool = False
    ) -> None:
        """`slowdown` lengthens every step by that share of itself: see harness.timing.brake. `each_sample_seeded` is
        for a replay: see Batches."""
        self.setup = setup
        self.optimizer: Optimizer | None = None
        if setup.workload.phase is not Phase.INFER:
            self.optimizer = setup.optimizer([item for item in setup.model.parameters() if item.requires_grad])
        self.steps_done = 0
        self._rates: list[float] = []
        self._seed, self._each_sample_seeded = seed, each_sample_seeded
        self._batches = Batches(setup, seed, each_sample_seeded=each_sample_seeded)
        self._clock = clock_for(setup.device)
        self.brake = brake_for(slowdown, setup.device) if slowdown else None

    def begin_at(self, steps_done: int) -> None:
        """Continue as if so many steps had been taken: with the batches after theirs."""
        self.steps_done = steps_done
        self._batches = Batches(self.setup, self._seed, each_sample_seeded=self._each_sample_seeded, begin=steps_done)

    def set_rate(self, factor: float) -> None:
        """Set the learning rates for the next steps to this multiple of those that the optimizer was made with."""
        assert self.optimizer is not None
        self._rates = self._rates or [float(group["lr"]) for group in self.optimizer.param_groups]
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(factor * rate)
            else:
                group["lr"] = factor * rate

    def steps(self, count: int, rates: Sequence[float] = ()) -> Message:
        """Take `count` contiguous steps. `rates`, if given, has a factor on the learning rate for each. Lists have one
        entry per step; step times include waiting for data and copying."""
        losses: list[Tensor] = []
        taken: list[Taking] = []
        self._clock.start()
        for index in range(count):
            if rates:
                self.set_rate(rates[index])
            asked_ns = time.perf_counter_ns()
            batch, taking = self._batches.next_timed()
            if self.optimizer is None:
                losses.append(infer_step(self.setup, batch))
            else:
                losses.append(train_step(self.setup, self.optimizer, batch))
            taken.append(taking)
            if self.brake is not None:
                self.brake.hold(asked_ns)
            self._clock.mark()
        times = self._clock.stop()
        if self.brake is not None:
            self.brake.learn(times.step_times_s)
        self.steps_done += count
        return {
            "step_times_s": times.step_times_s,
            "host_s": times.host_s,
            "data_wait_s": [taking.wait_s for taking in taken],
            "copy_s": [taking.copy_s for taking in taken],
            "losses": [float(loss) for loss in losses],
            "samples": [taking.load.samples for taking in taken],
            "tokens": [taking.load.tokens for taking in taken if taking.load.tokens is not None],
        }
