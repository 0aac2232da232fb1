"""What there is to choose from, as plain rows: techniques, models and plans."""

from __future__ import annotations

from typing import Any

from bench.composition import declared
from bench.plans import plans
from bench.registry import techniques
from bench.workload import Size, families, parameter_count

DETAILS = {"stage", "slot", "excludes", "ranks", "phases"}
"""Facts of a technique that a table has no room for."""


def technique_rows() -> list[dict[str, Any]]:
    """What is declared of each technique."""
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


def model_rows() -> list[dict[str, Any]]:
    """Every size of every family, and the shape it is measured at."""
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


def plan_rows() -> list[dict[str, Any]]:
    """Every plan and its caption."""
    return [{"name": name, "caption": (plan.__doc__ or "").partition("\n")[0]} for name, plan in plans().items()]
