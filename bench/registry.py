"""The registry of techniques: what is declared of each, one decorator and one dictionary."""

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
"""Largest relative difference of the first losses from the baseline's: without and with declared numerics."""

ALL = 0
"""As the number of ranks of a technique: all that the host offers."""

TRAINING = frozenset({Phase.PRETRAIN, Phase.FINETUNE})
EVERY_PHASE = frozenset(Phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique(Facts):
    """One registered speed-up: the function and its declared facts."""

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
        """Whether it trains the same model on the same data by the same rule, if perhaps in other numbers."""
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

    With `values` the function takes a second argument and registers as `name_value` for each; `{value}` in the first
    line of its docstring is filled in. Two techniques with the same `slot` exclude each other (two optimizers, say);
    `excludes` names techniques, or slots whose techniques are all excluded.
    `phases` are those that it makes sense in; by default training, and inference too for what only touches the model,
    its numbers or the feeding of data.
    `ranks` is the number of processes (ALL: as many as the host has GPUs; a function: of the value) and `replicas` over
    how many of them the global batch is shared (None: over all).
    `loss_tolerance` is the largest relative difference from the baseline's first losses, where these are comparable.
    `pretrained` gives the workload whose model must have been trained before anything is measured, a teacher say:
    its weights are then found with `bench.checkpoints.load`.
    `alone` says that it takes what memory there is, and is measured while no other arm holds any.
    `code` is how it is written by hand, for the script of a recipe; None: it is not known.
    `source` is the address of the primary source. Raises ValueError if a name is taken or the docstring is missing.
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
    """Every technique by name, in the order of stages: those of bench/techniques, and what plugins have registered."""
    for module in pkgutil.iter_modules(bench.techniques.__path__):
        importlib.import_module(f"bench.techniques.{module.name}")
    plugins.load_installed()
    return dict(sorted(_REGISTRY.items(), key=lambda item: (item[1].stage, item[1].family, item[0])))
