"""A day of training, for a terminal: the plan, the progress, and the result."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from harness.learning.course import Stand
from harness.learning.curve import Training
from harness.record import Status
from reports.text import listing
from reports.wording import day as wording
from reports.wording import quantity
from results.day import Day, write_curve


def render(day: Day) -> str:
    """The answer, the sizes, and the notes."""
    lines = [wording.headline(day), "", listing.aligned(wording.rows(day)), "", *wording.notes(day)]
    if day.reached:
        lines += ["", *wording.written(day)]
    return "\n".join(lines)


def outlook(
    sizes: Sequence[tuple[str, int | None]], label: str, minutes: float, looks: Sequence[float], near: Sequence[float]
) -> str:
    """What would be measured, before anything is."""
    named = ", ".join(f"{model} ({quantity.count(parameters or 0)} parameters)" for model, parameters in sizes)
    parts, longer = (", ".join(f"1/{round(1 / share)}" for share in shares) for shares in (looks, near))
    return (
        f"{named} would be timed with {label}, and trained for {parts} of the updates that fit into "
        f"{quantity.duration(60 * minutes)}; the size that seems best and its neighbours would also be trained for "
        f"{longer}. With --go the best is then trained for the whole time"
    )


def calibrated(model: str, training: Training) -> str:
    """The result of a short training, in one line."""
    asked = training.asked
    what = f"{model}, {asked.updates} updates, learning rate {asked.rate:.3g}x"
    if training.status is not Status.OK:
        return f"{what}: {training.reason}"
    return f"{what}: held-out loss {training.held_out_losses[-1]:.4g}"


class Progress:
    """Shows a long training as it runs, and writes its curve as parquet and, if TensorBoard is installed, as events for
    it. Use as a context manager."""

    def __init__(self, day: Day, folder: Path, *, is_timed: bool, console: Console | None = None) -> None:
        self._day, self._folder, self._console = day, folder, console or Console()
        self._is_timed = is_timed
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(day.chosen, total=1.0, left="")
        self._events: Any = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()
        if self._events is not None:
            self._events.close()

    def show(self, stand: Stand) -> None:
        """Show the progress. At a point of the curve, the curve is written too."""
        is_point = bool(stand.points) and stand.points[-1].updates == stand.updates
        if is_point:
            write_curve(stand.points, self._folder)
            self._write_events(stand)
        left_s = 60 * self._day.minutes - stand.elapsed_s
        done = stand.updates / stand.course.updates
        told = f"update {stand.updates:,} of {stand.course.updates:,}"
        told += f", held-out loss {stand.points[-1].held_out_loss:.4g}" if stand.points else ""
        # If the number of updates is given instead of the time, the time left is unknown.
        left = f"{quantity.duration(left_s, 2)} left" if self._is_timed and left_s > 0 else ""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, description=told, left=left)
        elif is_point:
            print(", ".join(filter(None, (f"{100 * done:3.0f} %: {told}", left))), flush=True)

    def _write_events(self, stand: Stand) -> None:
        if self._events is None:
            with contextlib.suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                # What an interrupted training wrote after its last checkpoint will be written again.
                purged = stand.points[-1].updates
                self._events = SummaryWriter(str(self._folder / "tensorboard"), purge_step=purged)
        if self._events is None:
            return
        point = stand.points[-1]
        known = {
            "loss/held_out": point.held_out_loss,
            "loss/train": point.train_loss,
            "learning_rate": point.rate,
            "tokens": point.tokens,
        }
        for name, value in known.items():
            if value is not None:
                self._events.add_scalar(name, value, point.updates)
        self._events.flush()
