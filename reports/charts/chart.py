"""A chart as the page takes it, and a kind of charts as the page shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.record import Machine, Record
from results.compare import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """An `<svg>` element, in words what is not in it, and the names of its marks by arm, where they are not in it."""

    svg: str
    note: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


Draw = Callable[[Sequence[Comparison], Sequence[Record], Machine, str], Iterable[Chart | None]]
"""From a workload's comparisons and records, the machine that they are of and a name that no other chart has, to its
chart, or to a wide one and a narrow one; None stands for nothing to draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A kind of chart, one for each workload, and what the page says beside it: of marks with the verdicts' legend, of
    lines what each shows, by its style, which is one of `.line` in style.css. `nothing` stands where there is none to
    draw; an `optional` section is left out then. Sections of a low `rank` come first, and those of a high one are left
    out first where there is no room.
    """

    name: str
    draw: Draw
    rank: int = 0
    title: str = ""
    words: str = ""
    marks: bool = False
    lines: Mapping[str, str] = field(default_factory=dict)
    nothing: str = ""
    optional: bool = False
