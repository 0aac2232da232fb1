"""Techniques that change nothing: rivals whose true effect is known, for calibration.

They are registered only if this module is imported, as `trainpace run --calibrate` does.
"""

from __future__ import annotations

from bench.registry import Stage, technique
from bench.setup import TrainingSetup

COUNT = 16


@technique(stage=Stage.DATA, source="https://en.wikipedia.org/wiki/A/B_testing", values=range(1, COUNT + 1))
def idle(setup: TrainingSetup, _: int) -> TrainingSetup:
    """Copy {value} of the baseline, which changes nothing."""
    return setup


COMPOSITIONS = tuple((f"idle_{number}",) for number in range(1, COUNT + 1))
