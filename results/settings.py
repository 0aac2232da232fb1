"""A team's settings of its gate: `[tool.trainpace.gate]` in its pyproject.toml, checked before anything runs."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from results.decision import Margins
from results.gate import Limits

TABLE = "[tool.trainpace.gate]"

_SHARES = ("tolerance", "harm", "memory")
_KEYS = (*_SHARES, "models", "budget", "strict", "setup", "acknowledge", "workloads")
_ACKNOWLEDGED = ("workload", "slowdown", "reason", "expires")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """A slow-down that is accepted up to and including `expires`: the workload may be slower by this share."""

    workload: str
    slowdown: float
    reason: str
    expires: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`shares` apply to all workloads, `workloads` to single ones. `budget` is in seconds for each workload."""

    shares: Mapping[str, float] = field(default_factory=dict)
    workloads: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    budget: float | None = None
    strict: bool = False
    setup: str | None = None
    acknowledged: tuple[Acknowledged, ...] = ()

    def limits(self, workload: str, overrides: Mapping[str, float | None], today: date) -> Limits:
        """The limits of a workload: from the command line, else from its own shares, else from those of all workloads.

        An acknowledged slow-down that has not expired shifts both margins by its size. Raises ValueError for shares
        that contradict each other.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        shares = {**self.shares, **self.workloads.get(workload, {}), **given}
        time = Margins(**{name: shares[name] for name in ("tolerance", "harm") if name in shares})
        accepted = self.accepted(workload, today)
        if accepted is not None:
            factor = 1 + accepted.slowdown
            time = Margins(tolerance=factor * (1 + time.tolerance) - 1, harm=factor * (1 + time.harm) - 1)
        return Limits(time=time, **({"memory": shares["memory"]} if "memory" in shares else {}))

    def accepted(self, workload: str, today: date) -> Acknowledged | None:
        """The largest acknowledged slow-down of the workload that has not expired; None if there is none."""
        valid = [item for item in self.acknowledged if item.workload == workload and item.expires >= today]
        return max(valid, key=lambda item: item.slowdown, default=None)

    def expired(self, today: date) -> list[Acknowledged]:
        return [item for item in self.acknowledged if item.expires < today]


def find(folder: Path) -> Settings:
    """The settings in the nearest pyproject.toml at or above `folder` that has any; else the defaults.

    Raises ValueError, naming the file, the key and what is valid, for anything invalid.
    """
    for above in (folder, *folder.parents):
        file = above / "pyproject.toml"
        if file.is_file():
            table = _table(file)
            if table is not None:
                return parse(table, file)
    return Settings()


def _table(file: Path) -> dict[str, Any] | None:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{str(file)!r} is not valid TOML: {error}") from error
    for name in ("tool", "trainpace", "gate"):
        if name not in found:
            return None
        found = found[name]
        if not isinstance(found, dict):
            raise ValueError(f"{TABLE} of {str(file)!r} is not a table: write it as one")
    return found


def parse(table: Mapping[str, Any], file: Path) -> Settings:
    """The settings in a table. Raises ValueError for an unknown key or an invalid value."""
    where = f"{TABLE} of {str(file)!r}"
    _check_keys(table, _KEYS, where)
    workloads = _typed(table, "workloads", dict, where, {})
    for name, shares in workloads.items():
        _check_keys(shares, _SHARES, f"workloads.{name!r} in {where}")
    acknowledge = _typed(table, "acknowledge", str, where, None)
    settings = Settings(
        shares=_shares(table, where),
        workloads={name: _shares(shares, f"workloads.{name!r} in {where}") for name, shares in workloads.items()},
        models=tuple(_typed(table, "models", list, where, [])),
        budget=_budget(table, where),
        strict=_typed(table, "strict", bool, where, False),
        setup=_typed(table, "setup", str, where, None),
        acknowledged=read_acknowledged(file.parent / acknowledge) if acknowledge else (),
    )
    if not all(isinstance(model, str) for model in settings.models):
        raise ValueError(f"models of {where} holds something that is not text: give names as --model takes them")
    # Contradictory limits must be found before anything runs.
    for name in ("", *settings.workloads):
        settings.limits(name, {}, date.today())
    return settings


def read_acknowledged(file: Path) -> tuple[Acknowledged, ...]:
    """The `[[acknowledge]]` tables in a TOML file. Raises ValueError for anything invalid."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8")).get("acknowledge")
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"acknowledge file {str(file)!r} cannot be read: {error}") from error
    if not isinstance(tables, list):
        raise ValueError(f"acknowledge file {str(file)!r} has no [[acknowledge]] tables: write one for each slow-down")
    return tuple(_acknowledged(table, f"[[acknowledge]] of {str(file)!r}") for table in tables)


def _acknowledged(table: Mapping[str, Any], where: str) -> Acknowledged:
    _check_keys(table, _ACKNOWLEDGED, where)
    missing = [name for name in _ACKNOWLEDGED if not table.get(name)]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}: each needs {', '.join(_ACKNOWLEDGED)}")
    expires = table["expires"]
    if type(expires) is not date:
        raise ValueError(f"expires {expires!r} in {where} is not a date: write it without quotes, as in 2030-01-31")
    return Acknowledged(
        workload=_typed(table, "workload", str, where, ""),
        slowdown=_share(table, "slowdown", where),
        reason=_typed(table, "reason", str, where, ""),
        expires=expires,
    )


def _budget(table: Mapping[str, Any], where: str) -> float | None:
    if "budget" not in table:
        return None
    value = _number(table, "budget", where)
    if value < 1:
        raise ValueError(f"budget {value:g} in {where} is less than a second: give seconds from 1 up")
    return value


def _check_keys(table: object, known: Sequence[str], where: str) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"{where} is {table!r}: give a table")
    for name in table:
        if name not in known:
            raise ValueError(f"{name!r} in {where} is unknown: give one of {', '.join(known)}")


def _shares(table: Mapping[str, Any], where: str) -> dict[str, float]:
    return {name: _share(table, name, where) for name in _SHARES if name in table}


def _number(table: Mapping[str, Any], name: str, where: str) -> float:
    value = table[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} {value!r} in {where} is not a number from 0 up: give one")
    return float(value)


def _share(table: Mapping[str, Any], name: str, where: str) -> float:
    value = _number(table, name, where)
    if value >= 1:
        raise ValueError(f"{name} {value:g} in {where} is not a share below 1: give one, such as 0.01 for 1 %")
    return value


def _typed(table: Mapping[str, Any], name: str, kind: type, where: str, default: Any) -> Any:
    value = table.get(name, default)
    if value is not default and not isinstance(value, kind):
        raise ValueError(f"{name} {value!r} in {where} is not of type {kind.__name__}")
    return value


def merged_models(settings: Settings, named: Sequence[str]) -> tuple[str, ...]:
    """The models to measure: those named, else those in the settings. Raises ValueError if there are none."""
    models = tuple(named) or settings.models
    if not models:
        raise ValueError("no model to measure: give --model, or models in [tool.trainpace.gate] of pyproject.toml")
    return models


def described(settings: Settings, today: date) -> list[str]:
    """The acknowledged slow-downs in words: those in force, then those that have expired."""
    holding = [item for item in settings.acknowledged if item not in settings.expired(today)]
    return [
        f"{item.workload} may be {item.slowdown:.1%} slower until {item.expires}: {item.reason}" for item in holding
    ] + [
        f"the acknowledged slow-down of {item.workload} expired on {item.expires}: {item.reason}"
        for item in settings.expired(today)
    ]
