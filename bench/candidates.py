"""Which techniques may join a recipe, and which of them wait until another of their kind has been tried."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bench.composition import compose, ranks, unmet
from bench.facts import Change
from bench.host import Host, compiler
from bench.registry import Technique, techniques
from bench.spec import Phase

HONEST = frozenset({Change.NUMERICS})
"""What a recipe may change unless more is allowed: it trains the same model on the same data by the same rule."""

FIRST = ("compile", "ddp_2", "accumulate_2", "workers_2")
"""The plainest technique of each kind. The others of a kind differ only in how they do it, and cost as much to try."""


FOR_OTHER_ENDS = frozenset(
    {
        "checkpoint_activations",
        "checkpoint_selective",
        "early_stopping_3",
        "qat_int4",
        "qat_int8",
        "schedule_constant",
    }
)
"""Techniques that cost time and give memory, or accuracy once the model is served; that are only a cost to be measured;
or that are the baseline until it stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Techniques that may join, by name, and why each of the others may not."""

    names: tuple[str, ...]
    left_out: dict[str, str]

    def waits_for(self, name: str) -> str | None:
        """The candidate that is tried before this one; None if there is none."""
        own = techniques()[name]
        for first in FIRST:
            if first != name and first in self.names and _is_alike(own, techniques()[first]):
                return first
        return None

    def is_late(self, name: str) -> bool:
        """Whether it is tried after all others: it is not made for speed, or it calls a compiler without being a way to
        compile the model."""
        own = techniques()[name]
        compiles = any(need.words.endswith(compiler.words) for need in own.needs)
        return name in FOR_OTHER_ENDS or (compiles and own.family != "compile")


def _is_alike(one: Technique, other: Technique) -> bool:
    """Whether both are of one kind: both train with several ranks, or share a family and a slot."""
    if other.ranks != 1:
        return one.ranks != 1
    return one.family == other.family and one.slot == other.slot


def candidates(
    host: Host, phase: Phase, batch: int, *, allowed: Collection[Change] = (), named: Sequence[str] = ()
) -> Candidates:
    """The techniques that may join on this host at this global batch; if some are `named`, only those.

    Raises ValueError for a named technique that is unknown, or that changes what is not allowed.
    """
    known = techniques()
    for name in named:
        (item,) = compose([name])
        if more := _more(item, allowed):
            raise ValueError(f"technique {name!r} changes the {more}: add {_options(item, allowed)}")
    chosen = [known[name] for name in named] or [item for item in known.values() if item.family != "planted"]
    reasons = {item.name: _why_not(item, host, phase, batch, allowed) for item in chosen}
    return Candidates(
        names=tuple(name for name, reason in reasons.items() if reason is None),
        left_out={name: reason for name, reason in reasons.items() if reason},
    )


def changes(words: Iterable[str]) -> frozenset[Change]:
    """What users allow, by the names that reports use. Raises ValueError for an unknown name."""
    valid = {change.value: change for change in Change if change not in HONEST}
    found = set()
    for word in words:
        if word not in valid:
            raise ValueError(f"allowed change {word!r} is unknown: give one of {', '.join(valid)}")
        found.add(valid[word])
    return frozenset(found)


def joined(recipe: Sequence[str], name: str) -> tuple[str, ...] | None:
    """The recipe with the technique added, in place of the one that excludes it if there is one. None if several
    exclude it."""
    if _composes([*recipe, name]):
        return (*recipe, name)
    exchanged = [others for item in recipe if _composes([*(others := tuple(o for o in recipe if o != item)), name])]
    return (*exchanged[0], name) if exchanged else None


def _composes(names: Sequence[str]) -> bool:
    try:
        compose(names)
    except ValueError:
        return False
    return True


def _why_not(item: Technique, host: Host, phase: Phase, batch: int, allowed: Collection[Change]) -> str | None:
    if _more(item, allowed):
        return f"changes the {_more(item, allowed)}; {_options(item, allowed)} lets it take part"
    if item.alone:
        return "takes all the memory that is free, which only one arm can do"
    if reason := unmet([item], host, phase):
        return reason
    needed, devices = ranks([item], host), host.gpus if host.device == "cuda" else host.cores
    if needed.count > devices:
        return f"trains with {needed.count} ranks, but there are only {devices} devices or cores"
    if batch % needed.replicas:
        return f"batch {batch} does not divide over its {needed.replicas} ranks"
    return None


def _more(item: Technique, allowed: Collection[Change]) -> str:
    """What the technique changes beyond what is allowed, in words."""
    return ", ".join(change.value for change in Change if change in item.changes - HONEST - set(allowed))


def _options(item: Technique, allowed: Collection[Change]) -> str:
    more = [change.value for change in Change if change in item.changes - HONEST - set(allowed)]
    return " ".join(f'--allow "{word}"' for word in more)
