"""The best language model that this machine can train in a given time: a plan over the sizes of a family, and the
training of the size that the plan chooses."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import __version__
from bench.api.finished import Where
from bench.api.keeping import new_folder
from bench.api.runs import fork_server as started
from bench.api.sizing import LEAST_UPDATES, PROTOCOL, Say, Sizing
from bench.causes import Unfinished
from bench.composition import allowance, compose, ranks, unmet
from bench.corpus import Part, write_atomically
from bench.facts import Change
from bench.host import Host
from bench.plans import sizes_of
from bench.spec import Overrides, Plan, WorkloadSpec, parse_composition
from bench.workload import families
from harness.learning.long_training import Asked as Long
from harness.learning.long_training import LongTraining, read_stand
from harness.learning.training import divided
from harness.preparation.prepared import Entry, look, prepare
from harness.processes.fork_server import ForkServer
from reports.page import day as page
from reports.text import day as text
from results import day as days
from results.day import Candidate, Day, Reached

PROMPT_WORDS = 6
"""Words of the prompt that a trained model continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The question, as it is stored. `size` is one that the user wants whatever the plan says. `updates` is a number of
    updates to train for instead of a time."""

    family: str
    size: str | None
    shape: WorkloadSpec
    techniques: tuple[str, ...]
    device: str
    minutes: float
    updates: int | None
    patience: int | None
    seed: int

    @classmethod
    def read(cls, folder: Path) -> Question:
        """Read the question stored in a folder. Raises ValueError if there is none."""
        try:
            data = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
            shape, techniques = WorkloadSpec.from_json(data.pop("shape")), tuple(data.pop("techniques"))
            return cls(shape=shape, techniques=techniques, **data)
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{str(folder)!r} is not a folder of `trainpace day`: give one that it made") from error

    def write(self, folder: Path) -> None:
        text = json.dumps(dataclasses.asdict(self), indent=2)
        write_atomically(folder / "asked.json", lambda name: Path(name).write_text(text, encoding="utf-8"))


class Made:
    """The result of `day`: the `folder` with the plan, and with the model once it is trained; and the plan itself as
    `day`."""

    def __init__(self, folder: Where, day: Day) -> None:
        self.folder, self.day = Path(folder), day

    def plain(self) -> dict[str, Any]:
        """Return the contents of plan.json."""
        return self.day.to_json()

    def text(self) -> str:
        """Return the text that `trainpace day` prints."""
        return text.render(self.day)

    def write(self) -> None:
        """Write plan.json and report.html."""
        days.write(self.day, self.folder)
        stand = read_stand(self.folder)
        shown = page.render(self.day, stand.points if stand else ())
        (self.folder / "report.html").write_text(shown, encoding="utf-8")

    def __repr__(self) -> str:
        return f"Made({str(self.folder)!r})"


def day(
    model: str = "gpt2",
    *,
    minutes: float = 60.0,
    techniques: Sequence[str] = (),
    updates: int | None = None,
    patience: int | None = None,
    device: str | None = None,
    overrides: Overrides | None = None,
    seed: int = 0,
    plugins: Sequence[Where] = (),
    out: Where = "runs",
    resume: Where | None = None,
    go: bool = False,
    dry_run: bool = False,
    say: Say = print,
) -> Made | None:
    """Plan the best language model of a family that can be trained in a given time, and with `go` train it, as
    `trainpace day` does.

    `model` is a family, or FAMILY/SIZE to train that size whatever the plan says. `minutes` is the training time;
    `updates` trains for that many updates instead. All sizes are trained with `techniques`, and in the shape and on the
    data that `overrides` asks for. `patience` stops the training once the held-out loss has not fallen for that many
    evaluations.

    A new folder is created in `out`. `resume` is the folder of a plan, or of an interrupted training, to continue. With
    `dry_run`, `say` only receives a description of the sizes that would be tried.

    Returns the plan, and with `go` the outcome of the training; None with `dry_run`. Raises ValueError for bad input,
    ArmFailed if the training cannot continue, and Unfinished if it was interrupted.
    """
    if updates is not None and updates < LEAST_UPDATES:
        raise ValueError(f"{updates} updates are too few to predict the loss from: give {LEAST_UPDATES} or more")
    with started([Path(file) for file in plugins]) as fork_server:
        planned: Day | None = None
        if resume is not None:
            folder, question = Path(resume), Question.read(Path(resume))
            planned = days.read(folder) if (folder / "plan.json").exists() else None
        else:
            family, _, size = model.partition("/")
            question = Question(
                family=family,
                size=size or None,
                shape=(overrides or Overrides()).shaped(WorkloadSpec(model=_smallest(family, size))),
                techniques=tuple(
                    item.name for item in compose([name for given in techniques for name in parse_composition(given)])
                ),
                device=look(fork_server, device).device,
                minutes=minutes,
                updates=updates,
                patience=patience,
                seed=seed,
            )
            folder = new_folder(Path(out), "day")
        planning = _Planning(question, fork_server, folder, say, only=planned.chosen if planned else None)
        if dry_run:
            say(planning.outlook())
            return None
        folder.mkdir(parents=True, exist_ok=True)
        if resume is None:
            planning.question.write(folder)
        try:
            made = Made(folder, planned or planning.plan())
            made.write()
            if go and made.day.reached is None:
                say(made.text())
                made = planning.trained(made)
        except KeyboardInterrupt:
            raise Unfinished(
                f"interrupted; what was trained is kept; continue with: trainpace day{' --go' if go else ''} --resume "
                f"{folder}",
                folder,
                interrupted=True,
            ) from None
    return made


def _smallest(family: str, size: str) -> str:
    """The model whose shape the family is asked for: its smallest size. Raises ValueError if this is not a family of
    language models, or has no such size."""
    known = families()
    able = [name for name, item in known.items() if _writes(item)]
    if family not in able:
        raise ValueError(f"model {family!r} does not generate text: give a causal language model, {', '.join(able)}")
    if size and size not in known[family].sizes:
        raise ValueError(f"{family} has no size {size!r}: give one of {', '.join(known[family].sizes)}")
    return f"{family}/{next(iter(known[family].sizes))}"


def _alike(specs: Sequence[WorkloadSpec], wanted: WorkloadSpec | None) -> list[WorkloadSpec]:
    """The sizes, and the one that is wanted, all in one shape, because their losses could not be compared otherwise. If
    no shape was given, it is the largest default batch and sequence of any of them."""
    every = [*specs, *([wanted] if wanted and wanted not in specs else [])]
    sizes = [families()[family].sizes[size] for family, size in (spec.model.split("/") for spec in every)]
    batch, sequence = (max(getattr(size, name) for size in sizes) for name in ("batch", "sequence"))
    return [dataclasses.replace(spec, batch=spec.batch or batch, sequence=spec.sequence or sequence) for spec in every]


def _writes(family: Any) -> bool:
    from bench.samples import causal

    sizes = list(family.sizes.values())
    return family.objective is not None and family.objective(sizes[0]) is causal


class _Planning:
    """From the question to the plan, and from the plan to the model."""

    def __init__(
        self, question: Question, fork_server: ForkServer, folder: Path, say: Say, *, only: str | None
    ) -> None:
        """`only` is the size that an existing plan has chosen: no other is needed any more. Raises ValueError for what
        cannot be planned."""
        self._fork_server, self._folder = fork_server, folder
        self._begun_s = time.monotonic()
        host = look(fork_server, question.device)
        wanted = (
            dataclasses.replace(question.shape, model=f"{question.family}/{question.size}") if question.size else None
        )
        specs = _alike(sizes_of(question.family, host, question.shape), wanted)
        shape = dataclasses.replace(question.shape, batch=specs[0].batch, sequence=specs[0].sequence)
        self.question = question = dataclasses.replace(question, shape=shape)
        if only:
            specs = [dataclasses.replace(shape, model=only)]
        _check(question.techniques, host)
        plan = Plan(
            name="pace",
            workloads=tuple(specs),
            compositions=(question.techniques,) if question.techniques else (),
            device=question.device,
            repetitions=1,
            seed=question.seed,
            protocol=PROTOCOL.with_energy(question.device),
        )
        prepared = prepare(plan, fork_server)
        both = [divided(entry, fork_server) for entry in prepared.entries]
        self._prepared = dataclasses.replace(prepared, entries=tuple(entry for entry, _ in both))
        self._sizing = Sizing(
            self._prepared,
            {entry.spec.model: told["bytes_per_token"] or 1.0 for entry, told in both},
            techniques=question.techniques,
            minutes=question.minutes,
            updates=question.updates,
            fork_server=fork_server,
            folder=folder,
            say=say,
        )

    def outlook(self) -> str:
        """Describe which sizes would be tried, and how."""
        return self._sizing.outlook()

    def plan(self) -> Day:
        """Measure how long updates take, see how the loss of each size falls, and choose a size."""
        timed = self._sizing.timed()
        _wanted(timed, self.question)
        candidates = self._sizing.expected(timed, lambda found: _chosen(found, self.question))
        return Day(
            family=self.question.family,
            minutes=self.question.minutes,
            techniques=self.question.techniques,
            candidates=tuple(candidates),
            chosen=_chosen(candidates, self.question),
            updates=self.question.updates,
            seed=self.question.seed,
            device=self.question.device,
            device_name=self._prepared.machine.device_name,
            version=__version__,
            planning_s=time.monotonic() - self._begun_s,
        )

    def trained(self, made: Made) -> Made:
        """Train the chosen size, from where its training stopped. Raises ArmFailed if it cannot continue."""
        chosen, question = made.day.candidate, self.question
        entry = next(item for item in self._prepared.entries if item.spec.model == chosen.model)
        asked = Long(
            techniques=question.techniques,
            seed=question.seed,
            rate=chosen.rate or 1.0,
            updates=chosen.updates or 0,
            seconds=None if question.updates else 60 * question.minutes,
            patience=question.patience,
        )
        with text.Progress(made.day, self._folder, is_timed=question.updates is None) as progress:
            training = LongTraining(
                asked,
                host=self._prepared.host,
                entry=entry,
                fork_server=self._fork_server,
                folder=self._folder,
                show=progress.show,
            )
            lasted = training.run(_beginning(entry))
        stand = lasted.stand
        reached = Reached(
            loss=stand.points[-1].held_out_loss,
            updates=stand.updates,
            tokens=stand.tokens,
            elapsed_s=stand.elapsed_s,
            ended=lasted.ended,
            texts=tuple(lasted.texts),
        )
        done = Made(made.folder, dataclasses.replace(made.day, reached=reached))
        done.write()
        return done


ALLOWED = {Change.NUMERICS, Change.UPDATE_RULE}
"""What a day's techniques may change. The schedule, the data order and the model are for `trainpace day` to decide."""


APART = {"offload_optimizer"}
"""Techniques that keep copies of the weights, which torch's state dictionaries do not contain."""


def _check(techniques: Sequence[str], host: Host) -> None:
    """Raises ValueError for a composition that a day cannot train with."""
    chosen, label = compose(techniques), "+".join(techniques)
    if reason := unmet(chosen, host):
        raise ValueError(reason)
    if ranks(chosen, host).count > 1:
        raise ValueError(f"{label} trains with several processes, but `trainpace day` uses one: leave it out")
    if apart := [item.name for item in chosen if item.name in APART]:
        raise ValueError(f"{apart[0]} keeps copies of the weights that checkpoints do not contain: leave it out")
    others = [change.value for change in Change if change in allowance(chosen)[0] - ALLOWED]
    if others:
        raise ValueError(f"{label} changes the {', '.join(others)}, which `trainpace day` decides itself: leave it out")


def _wanted(candidates: Sequence[Candidate], question: Question) -> str | None:
    """The size that the user wants; None if the plan may choose. Raises ValueError if it cannot be trained."""
    if question.size is None:
        return None
    wanted = next(item for item in candidates if item.model == f"{question.family}/{question.size}")
    if wanted.reason:
        span = f"in {question.minutes:g} minutes" if question.updates is None else f"for {question.updates} updates"
        raise ValueError(f"{wanted.model} cannot be trained {span}: {wanted.reason}")
    return wanted.model


def _chosen(candidates: Sequence[Candidate], question: Question) -> str:
    """The size that the user wants, or else the one with the lowest expected loss per byte of text."""
    known = [(item.expected.loss / item.bytes_per_token, item.model) for item in candidates if item.expected]
    return _wanted(candidates, question) or min(known)[1]


def _beginning(entry: Entry) -> str:
    """The first words of a held-out document, as a prompt for the model to continue."""
    document = next(entry.corpus.of(Part.HELD_OUT).documents())
    words: list[str] = document.text.decode("utf-8", "replace").split()
    return " ".join(words[:PROMPT_WORDS])
