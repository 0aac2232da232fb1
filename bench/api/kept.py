"""Trainings that are stored in a folder: only those that are wanted and missing are trained."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.spec import BASELINE
from harness.learning.curve import Asked, Training
from harness.learning.training import Trainings
from results import curves
from results import worth as outcome


class Kept:
    """The trainings of one `purpose`. Several purposes may share a folder, even from several threads of one process."""

    _writing = threading.Lock()

    def __init__(self, folder: Path, purpose: str) -> None:
        self._folder, self._purpose = folder, purpose

    def all(self) -> list[Training]:
        """All of them, in the order in which they ended."""
        return curves.read(self._folder, self._purpose)

    def next_rates(
        self, compositions: Iterable[tuple[str, ...]], rates: int, *, seed: int, updates: int
    ) -> list[Asked]:
        """The next learning rate to try of each composition that has had fewer than `rates`."""
        kept, wanted = self.all(), []
        for names in compositions:
            tried = outcome.tried_rates(kept, "+".join(names) or BASELINE)
            if len(tried) < rates:
                wanted.append(Asked(techniques=names, seed=seed, rate=outcome.next_rate(tried), updates=updates))
        return wanted

    def train(self, trainings: Trainings, wanted: Sequence[Asked], say: Callable[[Training], object]) -> None:
        """Train what is missing. Each training is stored and reported as it ends."""
        known = {item.asked for item in self.all()}
        for training in trainings.run([item for item in wanted if item not in known]):
            with self._writing:
                curves.write(training, self._folder, self._purpose)
                say(training)
