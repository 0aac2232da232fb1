"""What there is to choose from, as plain rows: techniques, models and plans.

The registry imports torch, which takes seconds, so it is asked only if it may know more than catalogue.json does.
`python -m bench.catalogue` writes that file again, and a test compares it with the registry.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

from bench.facts import Facts, Stage, arrange
from bench.plugins import GROUPS

HERE = Path(__file__).parent
KEPT = HERE / "catalogue.json"
SOURCES = ("plans.py", "models/*.py", "techniques/*.py")
"""Where techniques, models and plans are added."""

DETAILS = {"stage", "slot", "excludes", "ranks", "phases"}
"""Facts about a technique that a table has no room for."""

Rows = list[dict[str, Any]]


class Kind(StrEnum):
    TECHNIQUES = "techniques"
    MODELS = "models"
    PLANS = "plans"


def rows(kind: Kind) -> Rows:
    """One row for each technique, each size of a family, or each plan."""
    kept = _valid()
    return kept[kind] if kept else _registered(kind)


def captions() -> dict[str, str]:
    """What each technique does, in one line."""
    return {row["name"]: row["caption"] for row in rows(Kind.TECHNIQUES)}


def check(compositions: Iterable[tuple[str, ...]], plan: str | None = None, models: Iterable[str] = ()) -> None:
    """Raises ValueError for a technique, a plan or a size of a known family that is unknown, and for techniques that
    exclude each other."""
    known = {row["name"]: _facts(row) for row in rows(Kind.TECHNIQUES)}
    for names in compositions:
        arrange(names, known)
    plans = [row["name"] for row in rows(Kind.PLANS)]
    if plan is not None and plan not in plans:
        raise ValueError(f"plan {plan!r} is unknown: give one of {', '.join(plans)}")

    for model in models:
        family, _, size = model.partition("/")
        sizes = _sizes() if size else []
        if size and model not in sizes and any(name.startswith(f"{family}/") for name in sizes):
            near = difflib.get_close_matches(model, sizes, n=1)
            hint = f"did you mean {near[0]}?" if near else "see `trainpace list models`"
            raise ValueError(f"model {model!r} is unknown: {hint}")


def _sizes() -> list[str]:
    """FAMILY/SIZE for every size. Unlike `rows`, this builds no model to count its parameters."""
    if kept := _valid():
        return [row["name"] for row in kept[Kind.MODELS]]
    from bench.workload import families

    return [f"{family.name}/{name}" for family in families().values() for name in family.sizes]


def _facts(row: dict[str, Any]) -> Facts:
    return Facts(
        name=row["name"],
        stage=Stage[row["stage"].upper()],
        excludes=frozenset(row["excludes"]),
        slot=row["slot"],
    )


def _valid() -> dict[str, Rows] | None:
    """The stored rows. None once the registry is imported: plugins or tests may have registered more."""
    return None if "bench.workload" in sys.modules else _kept()


@functools.cache
def _kept() -> dict[str, Rows] | None:
    """The contents of the file. None if the sources have changed since it was written, or if packages declare more."""
    from importlib.metadata import entry_points

    if not KEPT.exists() or any(entry_points(group=group) for group in GROUPS):
        return None
    kept: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    return kept if kept.pop("sources") == _digest() else None


def _digest() -> str:
    files = sorted(file for pattern in SOURCES for file in HERE.glob(pattern))
    parts = [part for file in files for part in (file.name.encode(), file.read_bytes())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _registered(kind: Kind) -> Rows:
    return {Kind.TECHNIQUES: _technique_rows, Kind.MODELS: _model_rows, Kind.PLANS: _plan_rows}[kind]()


def _technique_rows() -> Rows:
    """What each technique declares."""
    from bench.composition import declared
    from bench.registry import techniques

    return [
        {
            "name": item.name,
            "family": item.family,
            "stage": item.stage.name.lower(),
            "caption": item.caption,
            "changes": declared([item]),
            "slot": item.slot,
            "excludes": sorted(item.excludes),
            "needs": [need.words for need in item.needs],
            "ranks": item.ranks or "all",
            "phases": sorted(item.phases),
            "source": item.source,
        }
        for item in techniques().values()
    ]


def _model_rows() -> Rows:
    """Every size of every family, and the shape that it is measured at."""
    from bench.workload import Size, families, parameter_count

    return [
        {
            "name": f"{family.name}/{name}",
            "caption": family.caption,
            "parameters": parameter_count(family, size),
            "batch": size.batch,
            "sequence": size.sequence if isinstance(size, Size) else None,
        }
        for family in families().values()
        for name, size in family.sizes.items()
    ]


def _plan_rows() -> Rows:
    """Every plan and its caption."""
    from bench.plans import plans

    return [{"name": name, "caption": (plan.__doc__ or "").partition("\n")[0]} for name, plan in plans().items()]


def main() -> None:
    """Write the file again."""
    made = {"sources": _digest()} | {kind.value: _registered(kind) for kind in Kind}
    KEPT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
