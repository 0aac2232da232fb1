"""The registry of techniques: what each one declares, a decorator and a dictionary."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import bench.techniques
from bench import plugins
from bench.facts import Change, Facts, Stage
from bench.host import Need
from bench.script.code import Code
from bench.setup import TrainingSetup
from bench.spec import Phase
from bench.workload import Workload

__all__ = [
    "ALL",
    "EVERY_PHASE",
    "OTHER_NUMERICS",
    "SAME_NUMERICS",
    "TRAINING",
    "Change",
    "Stage",
    "Technique",
    "technique",
    "techniques",
]

Apply = Callable[[TrainingSetup], TrainingSetup]

SAME_NUMERICS = 1e-3
OTHER_NUMERICS = 5e-2
"""Largest relative difference between the first losses and the baseline's: without and with declared numerics."""

ALL = 0
"""As a technique's number of ranks: as many as the host offers."""

TRAINING = frozenset({Phase.PRETRAIN, Phase.FINETUNE})
EVERY_PHASE = frozenset(Phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique(Facts):
    """One registered technique: its function and the facts that it declares."""

    caption: str
    apply: Apply
    changes: frozenset[Change]
    needs: tuple[Need, ...]
    phases: frozenset[Phase]
    ranks: int
    replicas: int | None
    loss_tolerance: float
    pretrained: Callable[[Workload], Workload] | None
    alone: bool
    source: str
    code: Code | None
    family: str

    @property
    def is_numerics_only(self) -> bool:
        """Whether it trains the same model on the same data by the same rule, with at most other rounding."""
        return self.changes <= {Change.NUMERICS}


_REGISTRY: dict[str, Technique] = {}


def technique(
    *,
    stage: Stage,
    source: str,
    changes: Collection[Change] = (),
    excludes: Collection[str] = (),
    slot: str | None = None,
    needs: Iterable[Need] = (),
    phases: Collection[Phase] | None = None,
    ranks: int | Callable[[Any], int] = 1,
    replicas: int | None = None,
    loss_tolerance: float | None = None,
    pretrained: Callable[[Workload], Workload] | None = None,
    alone: bool = False,
    code: Code | None = None,
    values: Iterable[Any] = (),
) -> Callable[[Callable[..., TrainingSetup]], Callable[..., TrainingSetup]]:
    """Register a function `TrainingSetup -> TrainingSetup` under its own name.

    With `values`, the function takes a second argument and is registered as `name_value` for each; `{value}` in the
    first line of its docstring is filled in. Two techniques with the same `slot` exclude each other (two optimizers,
    for example); `excludes` names techniques, or slots whose techniques are all excluded.
    `phases` are those that it makes sense in; by default training, and also inference for techniques that only touch
    the model, its numbers, its compilation or the feeding of data.
    `ranks` is the number of processes (ALL: as many as the host offers; a function: of the value), and `replicas` is
    how many of them share the global batch (None: all).
    `loss_tolerance` is the largest relative difference from the baseline's first losses, where these are comparable.
    `pretrained` gives a workload whose model must be trained before anything is measured, such as a teacher; its
    weights are then loaded with `bench.checkpoints.load`.
    `alone` says that it takes all the memory there is, and is measured while no other arm holds any.
    `code` is how it is written by hand, for the script of a recipe (None: not known).
    `source` is the address of the primary source.

    Raises ValueError if a name is taken or the docstring is missing.
    """
    numerics = OTHER_NUMERICS if Change.NUMERICS in changes else SAME_NUMERICS
    default_phases = EVERY_PHASE if stage <= Stage.NUMERICS or stage in (Stage.COMPILE, Stage.DATA) else TRAINING

    def register(function: Callable[..., TrainingSetup]) -> Callable[..., TrainingSetup]:
        base = function.__name__
        first_line = (inspect.getdoc(function) or "").partition("\n")[0]
        if not first_line:
            raise ValueError(f"technique {base!r} has no docstring: its first line is the caption in the report")
        count = ranks if callable(ranks) else lambda _: ranks
        variants: list[tuple[str, Apply, str, int, Code | None]] = [
            (
                f"{base}_{value}",
                functools.partial(_call, function, value),
                first_line.format(value=value),
                count(value),
                code and code.of(value),
            )
            for value in values
        ] or [(base, function, first_line, count(None), code)]
        for name, apply, caption, processes, written in variants:
            if name in _REGISTRY:
                raise ValueError(f"technique {name!r} is already registered: choose another name")
            _REGISTRY[name] = Technique(
                name=name,
                caption=caption,
                apply=apply,
                stage=stage,
                changes=frozenset(changes),
                excludes=frozenset(excludes),
                slot=slot if slot or len(variants) == 1 else base,
                needs=tuple(needs),
                phases=default_phases if phases is None else frozenset(phases),
                ranks=processes,
                replicas=replicas,
                loss_tolerance=numerics if loss_tolerance is None else loss_tolerance,
                pretrained=pretrained,
                alone=alone,
                source=source,
                code=written,
                family=function.__module__.rpartition(".")[2],
            )
        return function

    return register


def _call(function: Callable[..., TrainingSetup], value: Any, setup: TrainingSetup) -> TrainingSetup:
    return function(setup, value)


def techniques() -> dict[str, Technique]:
    """Every technique by name, in the order of stages: those in bench/techniques, and those that plugins have
    registered."""
    for module in pkgutil.iter_modules(bench.techniques.__path__):
        importlib.import_module(f"bench.techniques.{module.name}")
    plugins.load_installed()
    return dict(sorted(_REGISTRY.items(), key=lambda item: (item[1].stage, item[1].family, item[0])))
