"""Python source as `ruff format` would leave it: values, and calls on one line or with one argument per line."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

WIDTH = 88
"""The columns of a line, the default of Python's formatters."""


def literal(value: Any) -> str:
    """A value as Python source, with double quotes around text."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def call(head: str, arguments: Sequence[str], tail: str = ")", indent: int = 4) -> list[str]:
    """`head` with the arguments and `tail`, on one line if that fits after `indent` spaces."""
    line = f"{head}{', '.join(arguments)}{tail}"
    if len(line) + indent <= WIDTH:
        return [line]
    within = f"    {', '.join(arguments)}"
    if len(within) + indent <= WIDTH and tail.startswith(")"):
        return [head, within, tail]
    return [head, *(f"    {argument}," for argument in arguments), tail]


def named(options: Mapping[str, Any]) -> list[str]:
    """Options as keyword arguments."""
    return [f"{name}={literal(value)}" for name, value in options.items()]


def imports(statements: Iterable[str]) -> str:
    """Import statements in the usual order: the standard library first, and names from one module together."""
    modules: set[str] = set()
    names: dict[str, set[str]] = defaultdict(set)
    for statement in statements:
        kind, module, *rest = statement.split(maxsplit=3)
        if kind == "import":
            modules.add(statement.removeprefix("import "))
        else:
            names[module].update(name.strip() for name in rest[1].split(","))
    sections = [
        [
            *(f"import {module}" for module in sorted(modules) if _is_standard(module) is standard),
            *(line for module in sorted(names) if _is_standard(module) is standard for line in _from(module, names)),
        ]
        for standard in (True, False)
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _is_standard(module: str) -> bool:
    return module.partition(" ")[0].partition(".")[0] in sys.stdlib_module_names


def _from(module: str, names: Mapping[str, set[str]]) -> list[str]:
    # Constants first, then classes, then the rest, as in isort.
    ordered = sorted(names[module], key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    line = f"from {module} import {', '.join(ordered)}"
    return [line] if len(line) <= WIDTH else [f"from {module} import (", *(f"    {name}," for name in ordered), ")"]


def fitted(text: str) -> str:
    """The script with its long lines broken, if they end with a bracket, at that bracket."""
    return "\n".join(part for line in text.split("\n") for part in _broken(line.rstrip()))


def _broken(line: str) -> list[str]:
    indent = len(line) - len(line.lstrip())
    colon = ":" if line.endswith(":") else ""
    opening = _opening(line.removesuffix(":"))
    if len(line) <= WIDTH or opening is None:
        return [line]
    closing = line.removesuffix(":")[-1] + colon
    arguments = _arguments(line.removesuffix(":")[opening + 1 : -1])
    lines = call(line[indent : opening + 1], arguments, closing, indent)
    return [part for found in lines for part in _broken(" " * indent + found)]


def _opening(line: str) -> int | None:
    """Where the bracket opens that ends the line."""
    depths: list[int] = []
    for place, letter in _unquoted(line):
        if letter in "([{":
            depths.append(place)
        elif letter in ")]}" and depths:
            begun = depths.pop()
            if place == len(line) - 1:
                return begun
    return None


def _unquoted(text: str) -> Iterator[tuple[int, str]]:
    """The characters outside quotes, with their positions."""
    quote = ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            yield place, letter


def _arguments(text: str) -> list[str]:
    """Split at the commas that are outside brackets and quotes."""
    found, depth, begun = list[str](), 0, 0
    for place, letter in _unquoted(text):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and not depth:
            found.append(text[begun:place].strip())
            begun = place + 1
    return [part for part in (*found, text[begun:].strip()) if part]
