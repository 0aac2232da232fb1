"""A day of training in words and rows, for the terminal and the page alike."""

from __future__ import annotations

import math

from bench.spec import BASELINE
from reports.wording import quantity
from results.day import Candidate, Day
from results.scaling import Expected


def headline(day: Day) -> str:
    """The answer in a line."""
    long = f"{day.updates:,} updates" if day.updates else quantity.duration(60 * day.minutes)
    where = f"{long} on {day.device_name} ({day.device})"
    expected = day.candidate.expected
    told = interval(expected) if expected else quantity.UNKNOWN
    if day.reached is None:
        return f"{where}: {day.chosen} is the size to train, and its held-out loss is expected at {told}"
    return f"{where}: {day.chosen} reached a held-out loss of {day.reached.loss:.4g}; expected was {told}"


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
        "an update": quantity.duration(item.update_s) if item.update_s else unknown,
        "updates": f"{item.updates:,}" if item.updates else unknown,
        "tokens": quantity.count(item.tokens) if item.tokens else unknown,
        "memory": quantity.memory(item.peak_memory_bytes) if item.peak_memory_bytes else unknown,
        "energy": quantity.energy(item.joules) if item.joules else unknown,
        "learning rate": f"{item.rate:.3g}x" if item.rate else unknown,
        "expected loss": interval(item.expected) if item.expected else item.reason or unknown,
        "bits a byte": f"{_bits(item.expected.loss, item):.4g}" if item.expected else unknown,
    }


def _bits(loss: float, item: Candidate) -> float:
    """A byte, of a loss in nats a token: sizes that read text in other pieces are compared by it."""
    return loss / math.log(2) / item.bytes_per_token


def notes(day: Day) -> list[str]:
    """What else there is to say."""
    counted = any(item.joules for item in day.candidates)
    said = [
        f"Trained under {'+'.join(day.techniques) or BASELINE}. What each size reaches is read from a law of size and "
        "text that was fitted to short trainings of all of them on this machine; memory is that of tensors, predicted. "
        f"Planning took {quantity.duration(day.planning_s)}." + ("" if counted else " This machine counts no energy.")
    ]
    reached, expected = day.reached, day.candidate.expected
    if reached is None:
        return said
    off = f", {quantity.signed(100 * (reached.loss / expected.loss - 1))} % from what was expected" if expected else ""
    said.append(
        f"It ended because {reached.ended}, after {reached.updates:,} updates on {quantity.count(reached.tokens)} "
        f"tokens in {quantity.duration(reached.elapsed_s)}{off}. Perplexity {math.exp(reached.loss):.4g} a token, "
        f"{_bits(reached.loss, day.candidate):.4g} bits a byte."
    )
    return said


def written(day: Day) -> list[str]:
    """What the model writes."""
    return [f"It writes: {text!r}" for text in day.reached.texts] if day.reached else []
