"""Tuning: from a model to the fastest honest recipe, rung by rung."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Sequence
from pathlib import Path

from bench.api.climb import Climb, Say
from bench.api.finished import Run, Where
from bench.api.handed import handed_over
from bench.api.keeping import new_folder
from bench.api.learners import LEARNS, PACE_SHARE
from bench.api.runs import fork_server as started
from bench.api.stages import Asked, Stages
from bench.candidates import Candidates, candidates, changes, joined
from bench.cards import memory as bytes_of
from bench.facts import Change, Objective
from bench.registry import techniques as known_techniques
from bench.spec import Overrides, Phase, Plan, WorkloadSpec
from harness.learning.training import divided
from harness.preparation.forecast import forecast
from harness.preparation.prepared import look, prepare
from harness.processes.fork_server import ForkServer
from harness.telemetry.gpus import Gpus
from reports.page import ladder as page
from reports.text import ladder as text
from results import folders
from results import ladder as ladders
from results.ladder import Ladder


def tune(
    model: str | None = None,
    *,
    minutes: float = 30.0,
    memory: str | None = None,
    objective: str | None = None,
    allow: Sequence[str] = (),
    techniques: Sequence[str] = (),
    device: str | None = None,
    phase: Phase | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    seed: int = 0,
    plugins: Sequence[Where] = (),
    modules: Sequence[str] = (),
    out: Where = "runs",
    resume: Where | None = None,
    dry_run: bool = False,
    say: Say = print,
) -> Tuned | None:
    """Find the fastest recipe that trains the same model, in a given number of `minutes`, as `trainpace tune` does.

    `techniques` are the ones to try, by default all. `allow` names changes beyond rounding that a technique may
    declare, such as "data order". `memory` limits what an arm may take ("16GB"). `objective` is "pace" (the default),
    "energy" where the machine counts it, or "worth": the time to the same loss, for which the update rule and the
    schedule may also change. `batch` (samples per update), `sequence` (tokens) and the other settings describe the
    workload.

    The tuning creates its folder in `out`. `resume` is the folder of an interrupted tuning, which then gets its whole
    time again. With `dry_run`, `say` only receives a description of what would be tried.

    Returns the recipe with all that was measured; None with `dry_run`. Raises ValueError for what cannot be tuned.
    """
    if resume is None and model is None:
        raise ValueError("no model is named: give --model, as in --model gpt2/tiny")
    allowed = changes(allow)
    for name in modules:
        # This process composes candidates too.
        importlib.import_module(name)
    with started([Path(file) for file in plugins], modules) as fork_server:
        if resume is not None:
            folder, asked = Path(resume), Asked.read(Path(resume))
        else:
            asked = Asked(
                workload=Overrides(
                    phase=phase,
                    batch=batch,
                    sequence=sequence,
                    corpus=data,
                    text_column=text_column,
                    label_column=label_column,
                ).shaped(WorkloadSpec(model=model or "")),
                device=look(fork_server, device).device,
                minutes=minutes,
                memory_bytes=None if memory is None else bytes_of(memory),
                allowed=tuple(change.value for change in Change if change in allowed),
                named=tuple(techniques),
                seed=seed,
                objective=_objective(objective),
            )
            folder = new_folder(Path(out), "tune")
        climb = _prepared(asked, fork_server, folder, say)
        if dry_run:
            say(climb.outlook())
            return None
        folder.mkdir(parents=True, exist_ok=True)
        asked.write(folder)
        made = Tuned(folder, handed_over(climb.run(), climb.stages.prepared, fork_server, folder))
    made.write()
    return made


def _prepared(asked: Asked, fork_server: ForkServer, folder: Path, say: Say) -> Climb:
    """Prepare all that is known before anything is measured. Raises ValueError for what cannot be tuned."""
    plan = Plan(name="tune", workloads=(asked.workload,), compositions=(), device=asked.device, seed=asked.seed)
    prepared = prepare(plan, fork_server)
    batch = prepared.entries[0].batch
    allowed = changes(asked.allowed) | (LEARNS if asked.objective is Objective.WORTH else set())
    options = candidates(prepared.host, asked.workload.phase, batch, allowed=allowed, named=asked.named)
    alone = dataclasses.replace(plan, compositions=tuple((name,) for name in options.names))
    forecasts = forecast(dataclasses.replace(prepared, plan=alone), fork_server)
    stages = Stages(asked=asked, prepared=prepared, forecasts=forecasts, fork_server=fork_server, folder=folder)
    if asked.objective is Objective.ENERGY:
        energies_j = Gpus(asked.device, prepared.host.gpu_uuids).energies_j()
        if isinstance(energies_j, str):
            raise ValueError(f"objective 'energy' cannot be measured here ({energies_j}): give pace or worth")
    learners: tuple[str, ...] = ()
    if asked.objective is Objective.WORTH:
        # Find out before anything is measured whether samples can be held out.
        divided(prepared.entries[0], fork_server)
        learners = tuple(name for name in options.names if not known_techniques()[name].is_numerics_only)
        stages.share = PACE_SHARE
        options = dataclasses.replace(options, names=tuple(name for name in options.names if name not in learners))
    fitting = _fitting(stages, options) if stages.too_large([()]) else ()
    return Climb(stages=stages, options=options, say=say, fitting=fitting, learners=learners)


def _objective(word: str | None) -> Objective:
    try:
        return Objective(word or Objective.PACE)
    except ValueError:
        raise ValueError(f"objective {word!r} is unknown: give one of {', '.join(Objective)}") from None


SAVERS = 6
"""If no technique alone saves enough memory, pairs are tried of the techniques that take the least."""


def _fitting(stages: Stages, options: Candidates) -> tuple[tuple[str, ...], ...]:
    """The compositions to start with if the baseline takes too much memory: the single techniques, or else the pairs,
    that take no more than is allowed. Raises ValueError if there are none."""
    sizes = {name: stages.forecasts.of(stages.workload, name).peak_bytes for name in options.names}
    known = {name: size for name, size in sizes.items() if size is not None}
    single = [(name,) for name in known]
    savers = sorted(known, key=lambda name: known[name])[:SAVERS]
    pairs = [
        names for one, other in itertools.combinations(savers, 2) if len(names := joined((one,), other) or ()) == 2
    ]
    for compositions in (single, pairs):
        too_large = stages.too_large(compositions)
        if fitting := tuple(names for names in compositions if names not in too_large):
            return fitting
    told = {"+".join(names): stages.forecasts.of(stages.workload, "+".join(names)) for names in (*single, *pairs)}
    size, least = min((found.peak_bytes, label) for label, found in told.items() if found.peak_bytes is not None)
    raise ValueError(
        f"memory {(stages.asked.memory_bytes or 0) / 1e9:.3g} GB is less than {stages.workload} takes with one or two "
        f"techniques; {least} takes the least, {size / 1e9:.3g} GB: give more memory, or a smaller --batch"
    )


class Tuned:
    """The result of `tune`: its `folder`, and the `ladder` with all that was measured."""

    def __init__(self, folder: Where, ladder: Ladder) -> None:
        self.folder, self.ladder = Path(folder), ladder

    @property
    def techniques(self) -> tuple[str, ...]:
        """The techniques of the recipe; empty if nothing was confirmed to help."""
        return self.ladder.techniques

    def text(self) -> str:
        """Return the text that `trainpace tune` prints."""
        return text.render(self.ladder)

    def write(self) -> None:
        """Write recipe.json and report.html, and the report of each heat beside its records."""
        ladders.write(self.ladder, self.folder / "recipe.json")
        (self.folder / "report.html").write_text(page.render(self.ladder), encoding="utf-8")
        for heat in sorted((self.folder / "records").iterdir()):
            if folders.has_records(heat):
                Run(heat).render()

    def __repr__(self) -> str:
        return f"Tuned({str(self.folder)!r})"
