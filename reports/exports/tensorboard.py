"""Events for TensorBoard: a run for each arm, with its steps as a series, and its figures and settings as HParams."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from reports.exports.arms import Arm


def write(arms: Sequence[Arm], folder: Path) -> None:
    """Write the events of each arm. Raises ValueError if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise ValueError("tensorboard is not installed: pip install trainpace[tensorboard]") from None
    for arm in arms:
        began_s = datetime.fromisoformat(arm.started_at).timestamp()
        with SummaryWriter(str(folder / arm.slug)) as writer:
            for process, times_s in arm.step_times_s.items():
                for index, time_s in enumerate(times_s):
                    writer.add_scalar(f"step_time_s/{process}", time_s, index, walltime=began_s)
            writer.add_hparams(
                dict(arm.config), {f"figures/{name}": value for name, value in arm.metrics.items()}, run_name="."
            )
