"""Tasks for forked processes: train a recipe's script, or the arm that it was written from, from the start."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.composition import compose
from bench.dropout import set_dropout
from bench.seeds import seed_all
from bench.setup import baseline
from harness.message import Message
from harness.processes.worker import requested_workload
from harness.timing.trainer import Trainer


def replayed_losses(request: Message, techniques: Sequence[str], count: int) -> list[float]:
    """The first losses of an arm without dropout, as in its certificate."""
    seed_all(0)
    setup = baseline(requested_workload(request), torch.device("cpu"))
    set_dropout(setup.model, 0.0)
    for technique in compose(techniques):
        setup = technique.apply(setup)
    set_dropout(setup.model, 0.0)
    losses: list[float] = Trainer(setup, 0, each_sample_seeded=True).steps(count)["losses"]
    return losses


def script_output(path: str) -> str:
    """What a script prints when it compares its losses, and its exit message if it fails."""
    printed = io.StringIO()
    script = runpy.run_path(path)
    with contextlib.redirect_stdout(printed):
        try:
            script["train"](len(script["LOSSES"]), True)
        except SystemExit as end:
            print(end)
    return printed.getvalue()


def losses_in(output: str) -> list[float]:
    return [float(found) for found in re.findall(r"loss (\S+),", output)]


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
