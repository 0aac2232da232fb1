"""A recipe as `trainpace tune` leaves it: which workload it is for, and which techniques it takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench import plain
from bench.spec import WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What recipe.json says to whoever trains by it."""

    workload: WorkloadSpec
    techniques: tuple[str, ...]

    @property
    def label(self) -> str:
        return "+".join(self.techniques)


def read(file: Path) -> Recipe:
    """Raises ValueError for what is no recipe, and for an empty one."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        told = {"workload": data["ladder"]["workload"], "techniques": data["techniques"]}
        found = plain.read(Recipe, told, "the recipe")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(file)!r} is not a recipe: give a recipe.json that `trainpace tune` made") from error
    if not found.techniques:
        raise ValueError(f"recipe {str(file)!r} is empty, because nothing helped: there is nothing to run")
    return found
