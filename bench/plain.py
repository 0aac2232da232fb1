"""Reading plain data from JSON, each field as its dataclass declares it. Standard library only."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

Kind = TypeVar("Kind")

SCALARS: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
    types.NoneType: (types.NoneType,),
}


def read(kind: type[Kind], data: object, where: str = "it") -> Kind:
    """The inverse of `dataclasses.asdict`, after a round trip through JSON. Raises ValueError that names the field that
    is missing, unknown or of another type."""
    made: Kind = _read(kind, data, where)
    return made


def known(kind: Any, data: Any) -> Any:
    """The data without fields that a dataclass, or one nested in it, does not have: earlier versions may have had
    others."""
    if dataclasses.is_dataclass(kind) and isinstance(data, dict):
        hints = typing.get_type_hints(kind)
        return {name: known(hints[name], value) for name, value in data.items() if name in hints}
    if typing.get_origin(kind) in (tuple, list) and isinstance(data, list):
        return [known(typing.get_args(kind)[0], item) for item in data]
    return data


def _read(kind: Any, data: object, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _fields(kind, data, where)
    if origin in (types.UnionType, typing.Union):
        return _either(arguments, data, where)
    if origin in (tuple, list) and isinstance(data, list | tuple):
        return origin(_read(arguments[0], item, f"an entry of {where}") for item in data)
    if origin is not None and issubclass(origin, Mapping) and isinstance(data, dict):
        return {name: _read(arguments[1], item, f"{name!r} of {where}") for name, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _word(kind, data, where)
    is_flag = isinstance(data, bool) and kind is not bool
    if kind is Any or (kind in SCALARS and isinstance(data, SCALARS[kind]) and not is_flag):
        return data
    raise ValueError(f"{where} is {_shown(data)}, which is not of type {getattr(kind, '__name__', kind)}")


def _fields(kind: Any, data: object, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {_shown(data)}, which is not of type {kind.__name__}")
    hints = _hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if unknown := sorted(map(str, set(data) - set(fields))):
        raise ValueError(f"{where} has {unknown[0]!r}, which is not one of {', '.join(fields)}")
    for name, field in fields.items():
        if name not in data and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where} has no {name!r}")
    return kind(**{name: _read(hints[name], value, f"{name!r}") for name, value in data.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _either(kinds: tuple[Any, ...], data: object, where: str) -> Any:
    for kind in kinds:
        try:
            return _read(kind, data, where)
        except ValueError as error:
            reason = error
    raise reason


def _word(kind: type[Enum], data: object, where: str) -> Enum:
    for item in kind:
        if item.value == data:
            return item
    raise ValueError(f"{where} is {_shown(data)}: give one of {', '.join(str(item.value) for item in kind)}")


def _shown(data: object) -> str:
    text = repr(data)
    return text if len(text) <= 60 else f"{text[:59]}…"
