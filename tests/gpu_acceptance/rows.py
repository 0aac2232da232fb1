"""Rows of the acceptance table, and how they are formatted."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from reports.text import listing

WIDTHS = {"what": 36, "seen": 64, "expected": 40, "verdict": 7}
"""The widths of the columns of the plain table, in characters; longer text is wrapped."""


class Verdict(StrEnum):
    """`off`: it ran, but the result is not the expected one. `failed`: it gave no result."""

    OK = "ok"
    OFF = "off"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    what: str
    seen: str
    expected: str
    verdict: Verdict


def judged(what: str, seen: str, expected: str, *, holds: bool) -> Row:
    return Row(what=what, seen=seen, expected=expected, verdict=Verdict.OK if holds else Verdict.OFF)


def failed(what: str, reason: object) -> Row:
    """A failed row. `reason` is cut to its last line, which in an error message says what went wrong."""
    lines = str(reason).strip().splitlines() or ["no reason was given"]
    return Row(what=what, seen=lines[-1], expected="that it runs", verdict=Verdict.FAILED)


def not_run(what: str, reason: str) -> Row:
    return Row(what=what, seen=f"not run: {reason}", expected="", verdict=Verdict.NOT_RUN)


def needs_gpu(what: str) -> Row:
    return not_run(what, "needs a GPU")


def within(ratio: float, low: float, high: float) -> bool:
    return low <= ratio <= high


def exit_code(rows: Sequence[Row]) -> int:
    return int(any(row.verdict in (Verdict.FAILED, Verdict.OFF) for row in rows))


def plain(head: Sequence[str], rows: Sequence[Row]) -> str:
    """The rows as columns of text; cells that are too long are wrapped."""
    cells = [dict(zip(WIDTHS, WIDTHS, strict=True)), *(dataclasses.asdict(row) for row in rows)]
    return "\n".join([*head, "", *(line for item in cells for line in _wrapped(item))]) + "\n"


def _wrapped(cells: dict[str, str]) -> list[str]:
    columns = [textwrap.wrap(cells[name], width) or [""] for name, width in WIDTHS.items()]
    lines = itertools.zip_longest(*columns, fillvalue="")
    return ["  ".join(map(str.ljust, line, WIDTHS.values())).rstrip() for line in lines]


def markdown(head: Sequence[str], rows: Sequence[Row]) -> str:
    cells = [{name: value.replace("|", "/") for name, value in dataclasses.asdict(row).items()} for row in rows]
    return "\n".join([*(f"{line}  " for line in head), "", listing.markdown(cells)]) + "\n"
