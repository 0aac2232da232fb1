"""Expected and reached losses by size: renders docs/day-measured.md from the results in docs/day/.

python -m tests.day_page --measure gpt2 --minutes 10   # plan once, train the chosen size and those beside it, and keep
python -m tests.day_page                               # render the page
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

from bench import api
from reports.text import listing
from reports.wording import day as wording
from reports.wording import quantity
from results import day as days
from results.day import Day
from tests import ROOT

FOLDER = ROOT / "docs" / "day"
PAGE = ROOT / "docs" / "day-measured.md"

HEAD = """\
# What days came to

One [plan](day.md) for all sizes of a family, and then a whole training of the size that it chooses and of the sizes
beside it, each in the same time: the loss on held-out text that was expected beforehand, with its 95 % interval, and
the one that was reached.

```
python -m tests.day_page --measure gpt2 --minutes 10
```"""


def page() -> str:
    """The page, with a table for each plan."""
    parts = [HEAD]
    for file in sorted(FOLDER.glob("*.json")):
        made = [Day.from_json(item) for item in json.loads(file.read_text(encoding="utf-8"))]
        first = made[0]
        parts.append(f"## {first.family}, {quantity.duration(60 * first.minutes)} on {first.device_name}")
        planning = quantity.duration(first.planning_s)
        best = min((item for item in made if item.reached), key=lambda item: item.reached.loss if item.reached else 0.0)
        parts.append(f"Planning took {planning} and chose {first.chosen}; {best.chosen} came lowest.")
        parts.append(listing.markdown([_shown(item) for item in made]))
    return "\n\n".join(parts) + "\n"


def _shown(made: Day) -> dict[str, str]:
    reached, expected = made.reached, made.candidate.expected
    assert reached is not None and expected is not None
    return {
        "size": made.chosen,
        "parameters": quantity.count(made.candidate.parameters or 0),
        "updates": f"{reached.updates:,}",
        "tokens": quantity.count(reached.tokens),
        "took": quantity.duration(reached.elapsed_s),
        "expected loss": wording.interval(expected),
        "reached": f"{reached.loss:.4g}",
        "off": f"{quantity.signed(100 * (reached.loss / expected.loss - 1))} %",
    }


def measure(family: str, minutes: float, out: Path) -> list[Day]:
    """Make one plan, and train the size that it chooses and its neighbours."""
    planned = api.day(family, minutes=minutes, device="cpu", out=out)
    assert planned is not None
    able = [item.model for item in planned.day.candidates if item.expected]
    place = able.index(planned.day.chosen)
    beside = [able[index] for index in (place - 1, place + 1) if 0 <= index < len(able)]
    made = []
    for model in (planned.day.chosen, *beside):
        folder = planned.folder / model.replace("/", "-")
        folder.mkdir()
        shutil.copy(planned.folder / "asked.json", folder)
        days.write(dataclasses.replace(planned.day, chosen=model), folder)
        done = api.day(resume=folder, go=True)
        assert done is not None
        made.append(done.day)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", metavar="FAMILY")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    asked = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if asked.measure:
        made = measure(asked.measure, asked.minutes, asked.out)
        text = json.dumps([item.to_json() for item in made], indent=1) + "\n"
        (FOLDER / f"{asked.measure}.json").write_text(text, encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(f"rendered {PAGE}")


if __name__ == "__main__":
    main()
