"""A recipe as `trainpace tune` writes it: the workload that it is for, and its techniques."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench import plain
from bench.spec import WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The part of recipe.json that is needed to train with it."""

    workload: WorkloadSpec
    techniques: tuple[str, ...]

    @property
    def label(self) -> str:
        return "+".join(self.techniques)


def read(file: Path) -> Recipe:
    """Read a recipe.json. Raises ValueError if it is not a recipe, or an empty one."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        told = {"workload": data["ladder"]["workload"], "techniques": data["techniques"]}
        found = plain.read(Recipe, told, "the recipe")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(file)!r} is not a recipe: give a recipe.json that `trainpace tune` made") from error
    if not found.techniques:
        raise ValueError(f"recipe {str(file)!r} is empty, because nothing helped: there is nothing to run")
    return found
