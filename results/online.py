"""Many proposals, one after another, with a bound on the share of those kept that are no gain.

Testing each of a hundred useless changes at 5 % keeps five of them. Here the level of each test depends on the tests
before it: LORD++ (Ramdas, Yang, Wainwright & Jordan 2017, arXiv:1710.00499) controls the false discovery rate, the
expected share of false proposals among those kept, however many are tested. The level falls while nothing is kept, and
each proposal that is kept raises it again.
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
"""The share of the kept proposals that may be no gain."""

FIRST = FALSE_SHARE / 2
"""The part of FALSE_SHARE that can be spent before anything is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One proposal that was judged. `seeds` are the first seed that it was trained with, and their number."""

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
    """All proposals of a branch, in order."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Ledger:
        """The ledger in a file, empty if there is no file. Raises ValueError if the file is something else."""
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
        """The level of the next test."""
        number = len(self.entries) + 1
        kept = [index for index, entry in enumerate(self.entries, 1) if entry.kept]
        level = _share(number) * FIRST
        if kept:
            level += (FALSE_SHARE - FIRST) * _share(number - kept[0])
        return level + FALSE_SHARE * sum(_share(number - index) for index in kept[1:])

    @property
    def next_seed(self) -> int:
        """The first unused seed. None is used twice, so that no proposal is fitted to the luck of a known training."""
        return max((first + count for first, count in (entry.seeds for entry in self.entries)), default=0)


def _share(number: int) -> float:
    """The share of a budget that is spent on its test of this number; the shares sum to at most 1 (ibid., 4)."""
    return 0.0722 * math.log(max(number, 2)) / (number * math.exp(math.sqrt(math.log(number))))
