"""A day of training in sentences and rows, for both the terminal and the page."""

from __future__ import annotations

import math

from bench.spec import BASELINE
from reports.wording import quantity
from results.day import Candidate, Day
from results.scaling import Expected


def headline(day: Day) -> str:
    """The answer in one line."""
    long = f"{day.updates:,} updates" if day.updates else quantity.duration(60 * day.minutes)
    where = f"{long} on {day.device_name} ({day.device})"
    expected = day.candidate.expected
    told = interval(expected) if expected else quantity.UNKNOWN
    if day.reached is None:
        return f"{where}: {day.chosen} is the size to train; its expected held-out loss is {told}"
    return f"{where}: {day.chosen} reached a held-out loss of {day.reached.loss:.4g}; {told} was expected"


def interval(expected: Expected) -> str:
    """A loss with its bounds."""
    return f"{expected.loss:.4g} [{expected.low:.4g}, {expected.high:.4g}]"


def rows(day: Day) -> list[dict[str, str]]:
    """A row for each size."""
    made = [_row(item, item.model == day.chosen) for item in day.candidates]
    if not any(item.joules for item in day.candidates):
        for row in made:
            del row["energy"]
    return made


def _row(item: Candidate, is_chosen: bool) -> dict[str, str]:
    unknown = quantity.UNKNOWN
    return {
        "size": f"{item.model} *" if is_chosen else item.model,
        "parameters": quantity.count(item.parameters) if item.parameters else unknown,
        "time per update": quantity.duration(item.update_s) if item.update_s else unknown,
        "updates": f"{item.updates:,}" if item.updates else unknown,
        "tokens": quantity.count(item.tokens) if item.tokens else unknown,
        "memory": quantity.memory(item.peak_memory_bytes) if item.peak_memory_bytes else unknown,
        "energy": quantity.energy(item.joules) if item.joules else unknown,
        "learning rate": f"{item.rate:.3g}x" if item.rate else unknown,
        "expected loss": interval(item.expected) if item.expected else item.reason or unknown,
        "bits per byte": f"{_bits(item.expected.loss, item):.4g}" if item.expected else unknown,
    }


def _bits(loss: float, item: Candidate) -> float:
    """Bits per byte, from a loss in nats per token, so that sizes with different tokenizers can be compared."""
    return loss / math.log(2) / item.bytes_per_token


def notes(day: Day) -> list[str]:
    """How the plan was made, and how the training ended."""
    counted = any(item.joules for item in day.candidates)
    said = [
        f"Trained with {'+'.join(day.techniques) or BASELINE}. The expected losses come from a scaling law that was "
        "fitted to short trainings of all sizes on this machine. Memory is predicted, and counts tensors only. "
        f"Planning took {quantity.duration(day.planning_s)}." + ("" if counted else " Energy is not measured here.")
    ]
    reached, expected = day.reached, day.candidate.expected
    if reached is None:
        return said
    off = f", {quantity.signed(100 * (reached.loss / expected.loss - 1))} % from the expected loss" if expected else ""
    said.append(
        f"Training ended because {reached.ended}, after {reached.updates:,} updates on "
        f"{quantity.count(reached.tokens)} tokens in {quantity.duration(reached.elapsed_s)}{off}. Perplexity: "
        f"{math.exp(reached.loss):.4g} per token, {_bits(reached.loss, day.candidate):.4g} bits per byte."
    )
    return said


def written(day: Day) -> list[str]:
    """The texts that the model generated."""
    return [f"Sample text: {text!r}" for text in day.reached.texts] if day.reached else []
