"""What speed-ups are worth, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.learning.curve import Training
from harness.record import Status
from reports.text import listing
from reports.wording import quantity
from reports.wording import worth as wording
from results.worth import Answer


def render(answer: Answer) -> str:
    """The answer, a sentence and a row for each arm, and the notes."""
    lines = [wording.headline(answer)]
    if answer.found:
        lines += ["", *(wording.sentence(item, answer) for item in wording.ordered(answer))]
        lines += ["", listing.aligned(wording.rows(answer))]
    return "\n".join([*lines, "", *wording.notes(answer)])


def outlook(
    workload: str,
    trained: Sequence[str],
    paced: Sequence[str],
    unable: Mapping[str, str],
    *,
    rates: int,
    seeds: int,
    minutes: float,
    held_out: int,
) -> str:
    """What would be trained, and what not and why."""
    lines = [
        f"{workload}: {quantity.several(list(trained), 99)} would be trained, each at {rates} learning rates and then "
        f"over {seeds} seeds, in at most {minutes:g} minutes; {held_out} samples are held out"
    ]
    lines += [f"{label} changes only rounding: only its pace would be compared" for label in paced]
    return "\n".join([*lines, *(f"{label} cannot run here: {reason}" for label, reason in unable.items())])


def trained(training: Training, purpose: str) -> str:
    """The result of one training, in one line."""
    asked = training.asked
    what = f"{asked.label}, learning rate {asked.rate:.3g}x" + (f", seed {asked.seed}" if purpose == "compared" else "")
    if training.status is not Status.OK:
        return f"{what}: {training.reason}"
    return f"{what}: held-out loss {wording.loss(training.held_out_losses[-1])} after {training.updates[-1]} updates"
