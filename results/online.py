"""Many proposals, one after another, and how few of those that are kept may be no gain.

Whoever tests each of a hundred changes at 5 % keeps five that change nothing. Here the level of each test is made of
what the tests before it have left: LORD++ (Ramdas, Yang, Wainwright & Jordan 2017, arXiv:1710.00499), which keeps the
expected share of false ones among those that are kept at or below a level, however many there are. It falls while
nothing is kept, and each that is kept gives some of it back.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.corpus import write_atomically

FALSE_SHARE = 0.05
"""Of the proposals that are kept, the share that may be no gain."""

FIRST = FALSE_SHARE / 2
"""What is there before anything is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One proposal that was judged. `seeds` are the first of those that it was trained with and how many."""

    at: str
    base: str
    head: str
    workload: str
    p: float
    level: float
    kept: bool
    seeds: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All proposals of a branch, in their order."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Ledger:
        """An empty one where there is none yet. Raises ValueError for a file that is something else."""
        if not file.exists():
            return cls()
        try:
            rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["judged"]
            return cls(tuple(Entry(**{**row, "seeds": tuple(row["seeds"])}) for row in rows))
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"ledger {str(file)!r} is not one of trainpace judge: give another --ledger") from error

    def write(self, file: Path) -> None:
        rows = [dataclasses.asdict(entry) for entry in self.entries]
        text = json.dumps({"false_share": FALSE_SHARE, "judged": rows}, indent=2) + "\n"
        write_atomically(file, lambda name: Path(name).write_text(text, encoding="utf-8"))

    def with_entry(self, entry: Entry) -> Ledger:
        return Ledger((*self.entries, entry))

    @property
    def level(self) -> float:
        """That of the next test."""
        number = len(self.entries) + 1
        kept = [index for index, entry in enumerate(self.entries, 1) if entry.kept]
        level = _share(number) * FIRST
        if kept:
            level += (FALSE_SHARE - FIRST) * _share(number - kept[0])
        return level + FALSE_SHARE * sum(_share(number - index) for index in kept[1:])

    @property
    def next_seed(self) -> int:
        """No seed is counted twice: who has seen a training could fit a proposal to its luck."""
        return max((first + count for first, count in (entry.seeds for entry in self.entries)), default=0)


def _share(number: int) -> float:
    """Of what there is, how much is spent on the test of this number since: of all of them at most 1 (ibid., 4)."""
    return 0.0722 * math.log(max(number, 2)) / (number * math.exp(math.sqrt(math.log(number))))
