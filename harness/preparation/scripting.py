"""Writes a recipe down, in a forked process: the model is built to see what is in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.held_out import at_rate
from bench.script.model import Unwritten
from bench.script.recipe import for_lightning, for_trainer, script
from bench.spec import WorkloadSpec
from harness.message import Message
from harness.processes.worker import requested_workload


def write_down(request: Message, techniques: Sequence[str], folder: str, rate: float = 1.0, **measured: Any) -> Message:
    """Task: write recipe.py, and the files that it reads, to the folder. `measured` is passed to
    `bench.script.recipe.script` and holds for the workload's learning rate; the recipe trains at `rate` times that.

    Answers with the reason as `no_script` if there is no script, else None, and with the recipe's form `elsewhere`, by
    library.
    """
    workload, spec = requested_workload(request), WorkloadSpec.from_json(request["workload"])
    usual_rate = workload.learning_rate
    if rate != 1:
        # Rounded as one would write it: the rates that are tried differ by roots of ten.
        scaled = at_rate(workload, rate)
        workload = dataclasses.replace(scaled, learning_rate=float(f"{scaled.learning_rate:.4g}"))
    answer: Message = {
        "no_script": None,
        "elsewhere": {
            "transformers": dataclasses.asdict(for_trainer(workload, techniques)),
            "lightning": dataclasses.asdict(for_lightning(workload, techniques)),
        },
    }
    if rate != 1 and workload.optimizer is not None:
        return answer | {"no_script": f"it brings its own optimizer, which needs {rate:.3g} times its learning rate"}
    try:
        made = script(workload, spec, techniques, measured_rate=usual_rate, **measured)
    except Unwritten as reason:
        return answer | {"no_script": str(reason)}
    for name, array in made.files.items():
        np.save(Path(folder) / name, array)
    (Path(folder) / "recipe.py").write_text(made.text, encoding="utf-8")
    return answer
