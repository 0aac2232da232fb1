"""Operator calls as text from which they can be made again. Without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

ASKED, ANSWERED = "calls.json", "times.jsonl"
"""Files in the folder shared with the caller: the calls, and a line for each that was timed."""

Call = str
"""An operator's name, its arguments and its keyword arguments as JSON. Tensors are given by shape, strides and type."""

Layout = tuple[list[int], list[int], str]
"""The shape, strides and type of a tensor."""


def name(call: Call) -> str:
    """The operator's name, with its namespace."""
    found: str = json.loads(call)[0]
    return found


def tensors(call: Call) -> list[Layout]:
    """The layouts of the tensors that the operator is given."""
    return list(_tensors(json.loads(call)))


def _tensors(told: Any) -> Iterator[Layout]:
    match told:
        case {"tensor": [shape, strides, kind]}:
            yield shape, strides, kind
        case {"named": items}:
            yield from _tensors(list(items.values()))
        case list():
            for item in told:
                yield from _tensors(item)
