"""What speed-ups are worth, for programs."""

from __future__ import annotations

import math
from typing import Any

from results.worth import Answer, Found, Ratio


def plain(answer: Answer) -> list[dict[str, Any]]:
    """An object for each arm, the baseline first. Unknown is null; ratios are arm over baseline, below 1 is better."""
    arms = (answer.baseline, *answer.found) if answer.baseline else answer.found
    return [_plain(answer, item) for item in arms]


def _plain(answer: Answer, item: Found) -> dict[str, Any]:
    price = answer.price_per_hour
    joules, per_token = answer.joules_per_update.get(item.techniques), answer.bytes_per_token
    return {
        "workload": answer.workload["model"],
        "techniques": item.techniques,
        "target_loss": answer.target,
        "reached": item.reached,
        "seeds": item.seeds,
        "updates": item.updates,
        "time_s": item.time_s,
        "price": None if price is None or item.time_s is None else price * item.time_s / 3600,
        "energy_j": None if joules is None or item.updates is None else joules * item.updates,
        **_ratio("updates_ratio", item.updates_ratio),
        **_ratio("step_time_ratio", item.step_ratio),
        **_ratio("time_ratio", item.time_ratio),
        **_ratio("energy_ratio", item.joules_ratio),
        "verdict": None if item.techniques == answer.base else item.verdict.value,
        "reason": item.reason,
        "learns_alike": item.learns_alike,
        "final_loss": item.final_loss,
        "final_perplexity": None if item.final_loss is None or per_token is None else math.exp(item.final_loss),
        "final_bits_per_byte": None
        if item.final_loss is None or per_token is None
        else item.final_loss / math.log(2) / per_token,
        "final_scores": dict(item.final_scores),
        "stopped": item.stopped,
        "stopped_after_updates": item.stopped_after,
        "learning_rate": item.rate,
        "learning_rate_at_edge": item.at_edge,
        "learning_rates_tried": [{"rate": rate, "held_out_loss": loss} for rate, loss in item.rates],
    }


def _ratio(name: str, ratio: Ratio) -> dict[str, float | None]:
    return {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
