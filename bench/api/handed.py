"""What a tuning hands over besides its figures: a script, and the equivalent settings for other trainers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench.composition import allowance, compose, ranks
from bench.script.code import Elsewhere
from bench.spec import BASELINE
from harness.preparation.prepared import TASK_TIMEOUT_S, Prepared
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer
from reports.wording import ladder as wording
from results import folders, store
from results.ladder import Ladder


def handed_over(ladder: Ladder, prepared: Prepared, fork_server: ForkServer, folder: Path) -> Ladder:
    """Write recipe.py. Returns the ladder with whether there is a script, and with what the recipe is to other
    trainers."""
    chosen, entry = compose(ladder.techniques), prepared.entries[0]
    arguments = {
        "request": entry.request,
        "techniques": ladder.techniques,
        "device": ladder.device,
        "seed": ladder.seed,
        "said": wording.docstring(ladder, ranks(chosen, prepared.host).count),
        "losses": _losses(folder, ladder.techniques),
        "tolerance": allowance(chosen)[1],
        "rate": ladder.learning_rate,
        "folder": str(folder.resolve()),
    }
    try:
        answer = fork_server.run("harness.preparation.scripting:write_down", arguments, TASK_TIMEOUT_S)
    except (ArmFailed, ValueError) as failure:
        return dataclasses.replace(ladder, no_script=str(failure))
    elsewhere = {name: Elsewhere(**told) for name, told in answer["elsewhere"].items()}
    return dataclasses.replace(ladder, no_script=answer["no_script"], elsewhere=elsewhere)


def _losses(folder: Path, techniques: tuple[str, ...]) -> list[float]:
    """The first losses of the recipe, from its longest replay."""
    found: list[float] = []
    for heat in sorted((folder / "records").iterdir()):
        for record in store.read(heat) if folders.has_records(heat) else []:
            names = set() if record.techniques == BASELINE else set(record.techniques.split("+"))
            losses = record.certificate.first_losses if record.certificate else None
            if names == set(techniques) and losses and len(losses) > len(found):
                found = losses
    return found
