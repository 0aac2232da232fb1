"""What speed-ups are worth, in sentences and rows, for both the terminal and the page."""

from __future__ import annotations

import math

from harness.learning.curve import FURTHER
from reports.wording import quantity
from results.worth import Answer, Found, Ratio, Worth

SCORES = ("accuracy", "precision", "recall", "f1", "bleu", "chrf")

GOOD_FIRST = (Worth.GAIN, Worth.UNKNOWN, Worth.LOSS, Worth.NEVER, Worth.INVALID)


def ratio(found: Ratio) -> str:
    """Arm over baseline with its bounds; with one bound only, `at least` or `at most` that bound."""
    if found.value is None:
        return quantity.UNKNOWN
    if found.low is None and found.high is None:
        return f"about {found.value:.2f}"
    if found.high is None:
        return f"at least {found.low:.2f}"
    if found.low is None:
        return f"at most {found.high:.2f}"
    return quantity.ratio_interval(found.value, found.low, found.high).replace("x", "", 1)


def loss(value: float | None) -> str:
    return quantity.UNKNOWN if value is None else f"{value:.3f}"


def ordered(answer: Answer) -> list[Found]:
    """The arms, the most helpful first."""
    return sorted(
        answer.found, key=lambda item: (GOOD_FIRST.index(item.verdict), item.time_ratio.value or float("inf"))
    )


def headline(answer: Answer) -> str:
    """The answer in one line."""
    where = f"{answer.workload['model']} on {answer.device_name} ({answer.device})"
    if answer.target is None:
        return f"{where}: no training of {answer.base} has ended yet, so there is no loss to reach"
    target = f"held-out loss {loss(answer.target)}"
    gains = [item for item in ordered(answer) if item.verdict is Worth.GAIN]
    if not gains:
        return f"{where}: nothing that was tried is shown to reach {target} in less time than {answer.base}"
    best = gains[0]
    return f"{where}: {best.techniques} reaches {target} in {ratio(best.time_ratio)} of {answer.base}'s time"


def sentence(item: Found, answer: Answer) -> str:
    """The result of one arm."""
    said = _compared(item, answer)
    if item.stopped_after is None:
        return said
    share = f"{item.stopped} of its {item.seeds} trainings"
    return f"{said} {share} ended by themselves, after a median of {item.stopped_after:g} updates."


def _compared(item: Found, answer: Answer) -> str:
    target = loss(answer.target)
    if item.verdict is Worth.INVALID:
        return f"{item.techniques} is not comparable: {item.reason}."
    if item.reason and not item.reached:
        return f"{item.techniques} was not compared: {item.reason}."
    if item.verdict is Worth.NEVER:
        then = "where it ended" if item.stopped else f"when {answer.base} reaches it"
        return (
            f"{item.techniques} does not reach {target} in any of {item.seeds} trainings; its steps are "
            f"{ratio(item.step_ratio)}x as long, and its loss is {loss(item.final_loss)} {then}."
        )
    if item.learns_alike:
        return (
            f"{item.techniques} changes only rounding, and its losses and gradients are those of {answer.base}: "
            f"only its pace was compared. It reaches {target} in {ratio(item.time_ratio)} of the time."
        )
    often = "" if item.reached == 1 else f" (reached in {item.reached:.0%} of {item.seeds} trainings)"
    return (
        f"{item.techniques} reaches {target} in {ratio(item.time_ratio)} of {answer.base}'s time{often}: it takes "
        f"{ratio(item.updates_ratio)} of the updates, and its steps are {ratio(item.step_ratio)}x as long."
    )


def rows(answer: Answer) -> list[dict[str, str]]:
    """A row for each arm, the baseline first."""
    arms = ([answer.baseline] if answer.baseline else []) + ordered(answer)
    return [_row(item, answer) for item in arms]


def _row(item: Found, answer: Answer) -> dict[str, str]:
    is_baseline = item.techniques == answer.base
    any_ended = any(other.stopped for other in answer.found)
    row = {
        "techniques": item.techniques,
        "time to the loss": "1" if is_baseline else ratio(item.time_ratio),
        "updates": "1" if is_baseline else ratio(item.updates_ratio),
        "step": "1" if is_baseline else ratio(item.step_ratio),
        "seconds": quantity.UNKNOWN if item.time_s is None else quantity.duration(item.time_s),
        "reached": f"{item.reached:.0%} of {item.seeds}",
        "loss at the end" if any_ended else "loss at equal updates": loss(item.final_loss),
        "learning rate": quantity.UNKNOWN if item.rate is None else f"{item.rate:.3g}x",
        "verdict": "" if is_baseline else item.verdict.value,
    }
    if answer.bytes_per_token is not None:
        bits = None if item.final_loss is None else item.final_loss / math.log(2) / answer.bytes_per_token
        row["bits per byte"] = loss(bits)
    if any(other.final_scores for other in (answer.baseline, *answer.found) if other):
        scored = {name for other in (answer.baseline, *answer.found) if other for name in other.final_scores}
        row |= {name: loss(item.final_scores.get(name)) for name in SCORES if name in scored}
    if answer.price_per_hour is not None:
        known = item.time_s is not None
        row["price"] = f"{answer.price_per_hour * (item.time_s or 0.0) / 3600:.3g}" if known else quantity.UNKNOWN
    if answer.joules_per_update:
        joules = answer.joules_per_update.get(item.techniques)
        known = joules is not None and item.updates is not None
        row["energy"] = f"{(joules or 0.0) * (item.updates or 0.0):.3g} J" if known else quantity.UNKNOWN
    return row


def tuned(answer: Answer) -> list[dict[str, str]]:
    """For each trained arm, the learning rates that were tried and the final loss of each."""
    arms = ([answer.baseline] if answer.baseline else []) + ordered(answer)
    return [
        {
            "techniques": item.techniques,
            "rates and losses": ", ".join(f"{rate:.3g}x: {loss(found)}" for rate, found in item.rates),
            "best": f"{item.rate:.3g}x" + (", at the edge of what was tried" if item.at_edge else ""),
        }
        for item in arms
        if item.rate is not None and not item.learns_alike
    ]


def notes(answer: Answer) -> list[str]:
    """How the results were obtained."""
    said = []
    if answer.updates is not None and answer.target is not None:
        said.append(
            f"The loss to reach, {loss(answer.target)}, is what the median seed of {answer.base} has after "
            f"{answer.updates} updates, on text that no training has seen. Trainings that had not reached it by then "
            f"went on for up to {FURTHER} times as many updates."
        )
    said.append(
        "Every arm chose from the same number of learning rates, on other seeds than those that are compared. Bounds "
        "hold for all arms together with 95 % confidence. Time is that of updates, without the start and evaluations."
    )
    if any(item.at_edge for item in (answer.baseline, *answer.found) if item):
        said.append(
            "Where the best learning rate is at the edge of those that were tried, a better one may lie beyond."
        )
    if answer.interrupted:
        said.append("It was interrupted: these are the results so far.")
    said.append(f"It took {quantity.duration(answer.seconds)} in all.")
    return said
