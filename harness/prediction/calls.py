"""Calls of operators as texts, that they can be made from again. Without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

ASKED, ANSWERED = "calls.json", "times.jsonl"
"""Files of the folder that is shared with who asks: the calls, and a line for each that was timed."""

Call = str
"""An operator's name, its arguments and its named ones as JSON. Of a tensor there are shape, strides and type."""

Layout = tuple[list[int], list[int], str]
"""The shape, strides and type of a tensor."""


def name(call: Call) -> str:
    """The operator's, with its namespace."""
    found: str = json.loads(call)[0]
    return found


def tensors(call: Call) -> list[Layout]:
    """Those that the operator is given."""
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
