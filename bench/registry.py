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
from bench.setup import TrainingSetup

Apply = Callable[[TrainingSetup], TrainingSetup]


class Stage(IntEnum):
    """When a technique is applied; the order holds whatever order the user typed."""

    MODEL = 1
    NUMERICS = 2
    MEMORY = 3
    COMPILE = 4
    DISTRIBUTE = 5
    OPTIMIZER = 6
    STEP = 7
    DATA = 8


class Change(Enum):
    """What a technique is allowed to change. Any other difference from the baseline is unequal work."""

    NUMERICS = "numerics"
    TRAINED_PARAMETERS = "trained parameters"
    ARCHITECTURE = "architecture"
    OBJECTIVE = "objective"
    DATA_ORDER = "data order"
    SCHEDULE = "schedule"
    UPDATE_RULE = "update rule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the machine offers to techniques. `capability` is CUDA's (major, minor), None without a GPU."""

    device: str
    gpus: int = 0
    capability: tuple[int, int] | None = None


Need = Callable[[Host], str | None]
"""A requirement: the reason in words why the host does not meet it, or None."""


def gpu(minimum: tuple[int, int] = (0, 0), what: str = "a GPU") -> Need:
    """A CUDA device of at least this compute capability."""

    def need(host: Host) -> str | None:
        if host.device != "cuda" or host.capability is None:
            return f"needs {what}; this run is on {host.device}"
        if host.capability < minimum:
            return f"needs {what}; this GPU has compute capability {host.capability[0]}.{host.capability[1]}"
        return None

    return need


def gpus_for_ranks(ranks: int) -> Need:
    """One GPU a rank; on a CPU any number of ranks share the cores."""

    def need(host: Host) -> str | None:
        if host.device == "cuda" and host.gpus < ranks:
            return f"needs {ranks} GPUs, one for each rank; this machine has {host.gpus}"
        return None

    return need


def package(module: str, install: str) -> Need:
    """An importable module; `install` is the pip requirement that brings it."""

    def need(host: Host) -> str | None:
        if importlib.util.find_spec(module) is None:
            return f"needs the package {module}: python -m pip install {install}"
        return None

    return need


def compiler(host: Host) -> str | None:
    """A C++ compiler, which torch.compile calls on a CPU, or a C compiler, which triton calls on a GPU."""
    candidates = ("g++", "clang++") if host.device == "cpu" else ("gcc", "clang", "cc")
    if any(shutil.which(name) for name in candidates):
        return None
    return f"needs a compiler on the PATH, one of {', '.join(candidates)}: apt install g++"


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
    ranks: int
    source: str
    family: str


_REGISTRY: dict[str, Technique] = {}


def technique(
    *,
    stage: Stage,
    source: str,
    changes: Collection[Change] = (),
    excludes: Collection[str] = (),
    slot: str | None = None,
    needs: Iterable[Need] = (),
    ranks: int = 1,
    values: Iterable[Any] = (),
) -> Callable[[Callable[..., TrainingSetup]], Callable[..., TrainingSetup]]:
    """Register a function `TrainingSetup -> TrainingSetup` under its own name.

    With `values` the function takes a second argument and registers as `name_value` for each; `{value}` in the first
    line of its docstring is filled in. Two techniques with the same `slot` exclude each other (two optimizers, say).
    `source` is the address of the primary source. Raises ValueError if a name is taken or the docstring is missing.
    """

    def register(function: Callable[..., TrainingSetup]) -> Callable[..., TrainingSetup]:
        base = function.__name__
        first_line = (inspect.getdoc(function) or "").partition("\n")[0]
        if not first_line:
            raise ValueError(f"technique {base!r} has no docstring: its first line is the caption in the report")
        variants: list[tuple[str, Apply, str]] = [
            (f"{base}_{value}", functools.partial(_call, function, value), first_line.format(value=value))
            for value in values
        ] or [(base, function, first_line)]
        for name, apply, caption in variants:
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
                ranks=ranks,
                source=source,
                family=function.__module__.rpartition(".")[2],
            )
        return function

    return register


def _call(function: Callable[..., TrainingSetup], value: Any, setup: TrainingSetup) -> TrainingSetup:
    return function(setup, value)


def techniques() -> dict[str, Technique]:
    """Every technique by name, in the order of stages. Imports the modules of bench/techniques on first use."""
    for module in pkgutil.iter_modules(bench.techniques.__path__):
        importlib.import_module(f"bench.techniques.{module.name}")
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
            hint = f"did you mean {' or '.join(near)}?" if near else f"the techniques are {', '.join(known)}"
            raise ValueError(f"technique {name!r} is unknown: {hint}")
        chosen.append(known[name])
    chosen.sort(key=lambda item: (item.stage, item.name))
    for index, first in enumerate(chosen):
        for second in chosen[index + 1 :]:
            same_slot = first.slot is not None and first.slot == second.slot
            if same_slot or second.name in first.excludes or first.name in second.excludes:
                raise ValueError(f"techniques {first.name!r} and {second.name!r} exclude each other: use one of them")
    return chosen


def unmet(chosen: Iterable[Technique], host: Host) -> str | None:
    """Why this composition cannot run on this host, in words; None if it can."""
    reasons = [f"{item.name} {reason}" for item in chosen for need in item.needs if (reason := need(host))]
    return "; ".join(reasons) or None


def ranks(chosen: Iterable[Technique]) -> int:
    """How many processes the composition trains with."""
    return max((item.ranks for item in chosen), default=1)
