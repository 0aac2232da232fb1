"""The registry of techniques: one decorator, one dictionary, and the rules of composition."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

import bench.techniques
from bench import plugins
from bench.setup import TrainingSetup
from bench.spec import Phase
from bench.workload import Workload

Apply = Callable[[TrainingSetup], TrainingSetup]


class Stage(IntEnum):
    """When a technique is applied; the order holds whatever order the user typed.

    SHAPE builds another model in place of the baseline's, MODEL changes the one that is there. OPTIMIZER chooses what
    is made of the parameters, which DISTRIBUTE and STEP may wrap.
    """

    SHAPE = 1
    MODEL = 2
    NUMERICS = 3
    MEMORY = 4
    COMPILE = 5
    OPTIMIZER = 6
    DISTRIBUTE = 7
    STEP = 8
    DATA = 9


class Change(Enum):
    """What a technique is allowed to change. Any other difference from the baseline is unequal work."""

    NUMERICS = "numerics"
    TRAINED_PARAMETERS = "trained parameters"
    ARCHITECTURE = "architecture"
    OBJECTIVE = "objective"
    DATA_ORDER = "data order"
    SCHEDULE = "schedule"
    UPDATE_RULE = "update rule"
    BATCH_SIZE = "batch size"


CHANGES_MODEL = frozenset({Change.ARCHITECTURE, Change.OBJECTIVE, Change.TRAINED_PARAMETERS})
"""What makes another training job of it: such an arm is never called faster without saying so."""

SAME_NUMERICS = 1e-3
OTHER_NUMERICS = 5e-2
"""Largest relative difference of the first losses from the baseline's: without and with declared numerics."""

TRAINING = frozenset({Phase.PRETRAIN, Phase.FINETUNE})
EVERY_PHASE = frozenset(Phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the machine offers to techniques and plans: `memory_bytes` is the device's, of a CPU what is free of it.

    `capability` is CUDA's (major, minor), None without a GPU.
    """

    device: str
    gpus: int = 0
    cores: int = 2
    memory_bytes: int = 0
    capability: tuple[int, int] | None = None

    @property
    def ranks(self) -> int:
        """How many ranks a technique trains with that takes all there are: every GPU, or two on a CPU."""
        return max(2, self.gpus) if self.device == "cuda" else 2


ALL = 0
"""As the number of ranks of a technique: all that the host offers."""


@dataclass(frozen=True, slots=True)
class Need:
    """A requirement in `words`. Called with a host, it answers why that does not meet it, or None."""

    words: str
    reason: Callable[[Host], str | None]

    def __call__(self, host: Host) -> str | None:
        return self.reason(host)


def gpu(minimum: tuple[int, int] = (0, 0), what: str = "a GPU") -> Need:
    """A CUDA device of at least this compute capability."""

    def reason(host: Host) -> str | None:
        if host.device != "cuda" or host.capability is None:
            return f"needs {what}; this run is on {host.device}"
        if host.capability < minimum:
            return f"needs {what}; this GPU has compute capability {host.capability[0]}.{host.capability[1]}"
        return None

    return Need(what, reason)


def package(module: str, install: str) -> Need:
    """An importable module; `install` is the pip requirement that brings it."""

    def reason(host: Host) -> str | None:
        if importlib.util.find_spec(module) is None:
            return f"needs the package {module}: python -m pip install {install}"
        return None

    return Need(f"the package {install}", reason)


def _no_compiler(host: Host) -> str | None:
    candidates = ("g++", "clang++") if host.device == "cpu" else ("gcc", "clang", "cc")
    if any(shutil.which(name) for name in candidates):
        return None
    return f"needs a compiler on the PATH, one of {', '.join(candidates)}: apt install g++"


compiler = Need("a compiler", _no_compiler)
"""A C++ compiler, which torch.compile calls on a CPU, or a C compiler, which triton calls on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """One registered speed-up: the function and its declared facts."""

    name: str
    caption: str
    apply: Apply
    stage: Stage
    changes: frozenset[Change]
    excludes: frozenset[str]
    slot: str | None
    needs: tuple[Need, ...]
    phases: frozenset[Phase]
    ranks: int
    replicas: int | None
    loss_tolerance: float
    pretrained: Callable[[Workload], Workload] | None
    source: str
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
        variants: list[tuple[str, Apply, str, int]] = [
            (f"{base}_{value}", functools.partial(_call, function, value), first_line.format(value=value), count(value))
            for value in values
        ] or [(base, function, first_line, count(None))]
        for name, apply, caption, processes in variants:
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
                source=source,
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


def compose(names: Iterable[str]) -> list[Technique]:
    """The techniques in the order in which they are applied.

    Raises ValueError for an unknown name (with the nearest ones) or for two that exclude each other.
    """
    known = techniques()
    chosen = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see `trainpace list techniques`"
            raise ValueError(f"technique {name!r} is unknown: {hint}")
        chosen.append(known[name])
    chosen.sort(key=lambda item: (item.stage, item.name))
    for index, first in enumerate(chosen):
        for second in chosen[index + 1 :]:
            if _in_conflict(first, second):
                raise ValueError(f"techniques {first.name!r} and {second.name!r} exclude each other: use one of them")
    return chosen


def _in_conflict(first: Technique, second: Technique) -> bool:
    if first.slot is not None and first.slot == second.slot:
        return True
    return any(
        not one.excludes.isdisjoint({other.name, other.slot}) for one, other in ((first, second), (second, first))
    )


def unmet(chosen: Iterable[Technique], host: Host, phase: Phase = Phase.PRETRAIN) -> str | None:
    """Why this composition cannot run on this host in this phase, in words; None if it can."""
    reasons = []
    for item in chosen:
        if phase not in item.phases:
            reasons.append(f"{item.name} is for the phases {', '.join(sorted(item.phases))}; this is {phase}")
        reasons += [f"{item.name} {reason}" for need in item.needs if (reason := need(host))]
        if reason := _too_few_devices(item.ranks or host.ranks, host):
            reasons.append(f"{item.name} {reason}")
    return "; ".join(reasons) or None


def _too_few_devices(ranks: int, host: Host) -> str | None:
    """One GPU a rank; on a CPU two ranks may share a core, so that small machines can try."""
    if host.device == "cuda" and ranks > max(1, host.gpus):
        return f"needs {ranks} GPUs, one for each rank; this machine has {host.gpus}"
    if host.device == "cpu" and ranks > 2 * host.cores:
        return f"needs {ranks} ranks, more than two for each of the {host.cores} cores"
    return None


def allowance(chosen: Collection[Technique]) -> tuple[set[Change], float]:
    """What the composition may change, and how far its first losses may lie from the baseline's, relative."""
    changes: set[Change] = set().union(*(item.changes for item in chosen))
    # Rounding errors of several techniques add up.
    rounding = sum(item.loss_tolerance for item in chosen if Change.NUMERICS in item.changes)
    return changes, max(SAME_NUMERICS, rounding)


def declared(chosen: Collection[Technique]) -> list[str]:
    """What the composition declares that it changes, in words, in the order of `Change`."""
    changes, _ = allowance(chosen)
    return [change.value for change in Change if change in changes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """How many processes a composition trains with, and over how many of them the global batch is shared."""

    count: int = 1
    replicas: int = 1


def ranks(chosen: Iterable[Technique], host: Host) -> Ranks:
    """The ranks of the composition; at most one technique of it brings more than one."""
    for item in chosen:
        if item.ranks != 1:
            count = item.ranks or host.ranks
            return Ranks(count=count, replicas=item.replicas or count)
    return Ranks()
