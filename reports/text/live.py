"""The run in progress: a live table with progress and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench.spec import Plan
from harness.heats.sweep import PRETRAINING
from harness.heats.sweep import Progress as SweepProgress
from harness.record import Record, Status
from results.pace import step_time_s


class Live:
    """Shows a sweep. Use as a context manager, and pass `progress` and `record` as callbacks."""

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        self._console = console or Console()
        self._plan = plan
        self._rows: dict[str, Record] = {}
        self._workload = ""
        self._heat: tuple[str, int] | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} arms"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task(plan.name, total=1)
        # Drawn only between phases: an automatic refresh would use the processor during timed steps.
        self._live = RichLive(console=self._console, get_renderable=self._render, auto_refresh=False)

    def __enter__(self) -> Live:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def progress(self, progress: SweepProgress) -> None:
        """Show what the sweep is doing now."""
        if progress.phase == PRETRAINING:
            self._line(f"{progress.workload}: training the checkpoints that it starts from, once")
            return
        heat = (progress.workload, progress.repetition)
        if heat != self._heat:
            self._heat = heat
            if not self._console.is_terminal:
                self._line(f"{progress.workload}: repetition {progress.repetition + 1}")
        if progress.workload != self._workload:
            self._workload, self._rows = progress.workload, {}
        what = " ".join(word for word in (progress.techniques, progress.phase) if word)
        description = f"{progress.workload} repetition {progress.repetition + 1}: {what}"
        self._progress.update(self._task, description=description, completed=progress.done, total=progress.total)
        self._draw()

    def record(self, record: Record) -> None:
        """Show an arm that has finished."""
        if self._console.is_terminal:
            if record.workload == self._workload:
                self._rows[record.techniques] = record
                self._draw()
            return
        seen = _step_time(record) if record.status is Status.OK else f"{record.status}: {record.reason}"
        self._line(f"  {record.workload} {record.techniques}: {seen}")

    def _draw(self) -> None:
        if self._console.is_terminal:
            self._live.refresh()

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _render(self) -> Group:
        table = Table(title=self._workload or None, title_justify="left")
        table.add_column("technique")
        table.add_column("status")
        table.add_column("step time", justify="right")
        for label, record in self._rows.items():
            table.add_row(label, record.status, _step_time(record) if record.status is Status.OK else record.reason)
        return Group(*([table] if self._rows else []), self._progress)


def _step_time(record: Record) -> str:
    time_s = step_time_s(record)
    return "disturbed" if record.disturbed else "unknown" if time_s is None else f"{time_s * 1e3:.2f} ms"
