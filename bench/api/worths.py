"""What a speed-up is worth: from techniques to the time in which each reaches the same loss."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.api.asking import Asking, Question, Say
from bench.api.finished import Where
from bench.api.keeping import new_folder
from bench.api.runs import fork_server as started
from bench.composition import compose
from bench.spec import Overrides, WorkloadSpec, parse_composition
from harness.preparation.prepared import look
from reports.formats import worth as formats
from reports.page import worth as page
from reports.text import worth as text
from results.worth import Answer


class Worth:
    """The result of `worth`: its `folder`, and the `answer` with all that was found."""

    def __init__(self, folder: Where, answer: Answer) -> None:
        self.folder, self.answer = Path(folder), answer

    def plain(self) -> list[dict[str, Any]]:
        """Return one object per arm, as `trainpace worth --format json` prints them."""
        return formats.plain(self.answer)

    def text(self) -> str:
        """Return the text that `trainpace worth` prints."""
        return text.render(self.answer)

    def write(self) -> None:
        """Write worth.json and report.html beside the trainings and the records."""
        (self.folder / "worth.json").write_text(json.dumps(self.plain(), indent=2) + "\n", encoding="utf-8")
        (self.folder / "report.html").write_text(page.render(self.answer), encoding="utf-8")

    def __repr__(self) -> str:
        return f"Worth({str(self.folder)!r})"


def worth(
    model: str | None = None,
    techniques: Sequence[str] = (),
    *,
    minutes: float = 30.0,
    seeds: int = 5,
    rates: int = 5,
    updates: int | None = None,
    target: float | None = None,
    price_per_hour: float | None = None,
    device: str | None = None,
    overrides: Overrides | None = None,
    seed: int = 0,
    plugins: Sequence[Where] = (),
    modules: Sequence[str] = (),
    out: Where = "runs",
    resume: Where | None = None,
    dry_run: bool = False,
    say: Say = print,
) -> Worth | None:
    """Train the baseline and each composition over several seeds, and find out how soon each reaches the same loss, as
    `trainpace worth` does.

    `techniques` are compositions, several techniques joined by +. The target loss is `target`, or else what the
    baseline's median seed reaches after `updates`, by default as many as `minutes` leave time for. Every arm is trained
    on `seeds` seeds, at the best of `rates` learning rates. `price_per_hour` puts a price on the time. `overrides`
    changes the shape and the data of the workload.

    A new folder is created in `out`. `resume` is the folder of an interrupted question, to continue. With `dry_run`,
    `say` only receives a description of what would be trained.

    Returns the answer; None with `dry_run`. Raises ValueError for bad input, and ArmFailed if a checkpoint that an arm
    starts from cannot be made.
    """
    if resume is None and model is None:
        raise ValueError("no model is named: give --model, as in --model gpt2/nano")
    if resume is None and not techniques:
        raise ValueError("no technique is named: give --technique, as in --technique muon")
    for name in modules:
        importlib.import_module(name)
    with started([Path(file) for file in plugins], modules) as fork_server:
        if resume is not None:
            folder, question = Path(resume), Question.read(Path(resume))
        else:
            # In the order of application, as in records.
            named = dict.fromkeys(
                tuple(item.name for item in compose(parse_composition(given))) for given in techniques
            )
            question = Question(
                workload=(overrides or Overrides()).shaped(WorkloadSpec(model=model or "")),
                device=look(fork_server, device).device,
                compositions=tuple(names for names in named if names),
                minutes=minutes,
                seeds=seeds,
                rates=rates,
                updates=updates,
                target=target,
                price_per_hour=price_per_hour,
                seed=seed,
            )
            folder = new_folder(Path(out), "worth")
        asking = Asking(question, fork_server, folder, say)
        if dry_run:
            say(asking.outlook())
            return None
        folder.mkdir(parents=True, exist_ok=True)
        made = Worth(folder, asking.answer())
    made.write()
    return made
