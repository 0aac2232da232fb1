"""A chart for the page, and a section of the page with one kind of chart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.record import Machine, Record
from results.compare import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """An `<svg>` element, a note on what it leaves out, and by arm the names of marks that it does not name itself."""

    svg: str
    note: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


Draw = Callable[[Sequence[Comparison], Sequence[Record], Machine, str], Iterable[Chart | None]]
"""Takes a workload's comparisons and records, their machine and a unique name for the chart; gives one chart, or a wide
and a narrow one. None means that there is nothing to draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A kind of chart, one for each workload, and the text around it. With `marks`, the legend of verdicts is shown.
    `lines` is a legend of lines: by style (one of `.line` in style.css), what each shows. `nothing` is the text if
    there is no chart; an `optional` section is then left out. Sections with a low `rank` come first; those with a high
    one are the first to be left out if there is no room.
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
