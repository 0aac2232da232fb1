"""The files of a run in Weights & Biases, in a folder per arm: config.yaml, wandb-summary.json, wandb-history.jsonl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from reports.exports.arms import Arm


def write(arms: Sequence[Arm], folder: Path) -> None:
    """Write a folder for each arm. The configuration is JSON, which is valid YAML."""
    for arm in arms:
        own = folder / arm.slug
        own.mkdir(parents=True)
        history = [
            {"_step": index, **{name: times[index] for name, times in _series(arm).items() if index < len(times)}}
            for index in range(max((len(times) for times in arm.step_times_s.values()), default=0))
        ]
        summary = {**arm.metrics, "_step": max(0, len(history) - 1)}
        config = {name: {"value": value} for name, value in arm.config.items()}
        (own / "config.yaml").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (own / "wandb-summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        lines = "".join(f"{json.dumps(row)}\n" for row in history)
        (own / "wandb-history.jsonl").write_text(lines, encoding="utf-8")


def _series(arm: Arm) -> dict[str, Sequence[float]]:
    return {f"step_time_s/{process}": times_s for process, times_s in arm.step_times_s.items()}
