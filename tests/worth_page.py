"""What techniques were found to be worth, rendered into docs/worth-measured.md from what is kept in docs/worth/.

trainpace worth --model gpt2/nano --technique muon ... --minutes 30
python -m tests.worth_page --keep runs/RUN_ID    # put what it has found to what is kept, and render the page
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.spec import BASELINE
from reports.text import listing
from reports.wording import worth as wording
from results.worth import Ratio
from tests import ROOT

FOLDER = ROOT / "docs" / "worth"
PAGE = ROOT / "docs" / "worth-measured.md"

HEAD = """\
# What techniques were worth

Time to the same loss on held-out text over the baseline's, [found](worth.md) by `trainpace worth` on two cores of an
AMD EPYC. Ratios are arm over baseline, below 1 is better, with bounds that hold for all arms of a table together with
95 %.

```
trainpace worth --model gpt2/nano --technique muon --technique adam --technique lion --technique layer_drop \\
    --technique distill --minutes 30
python -m tests.worth_page --keep runs/RUN_ID
```"""


def page() -> str:
    """A table for each model."""
    parts = [HEAD]
    for file in sorted(FOLDER.glob("*.json")):
        arms = json.loads(file.read_text(encoding="utf-8"))
        first = arms[0]
        parts.append(f"## {first['workload']}")
        loss, seeds = first["target_loss"], first["seeds"]
        parts.append(f"To held-out loss {loss:.3f}, which the baseline's median seed of {seeds} reached.")
        parts.append(listing.markdown([_shown(arm) for arm in arms]))
    return "\n\n".join(parts) + "\n"


def _shown(arm: Mapping[str, Any]) -> dict[str, Any]:
    rate = arm["learning_rate"]
    return {
        "techniques": arm["techniques"],
        "time to the loss": _ratio(arm, "time_ratio"),
        "updates": _ratio(arm, "updates_ratio"),
        "step": _ratio(arm, "step_time_ratio"),
        "reached": f"{arm['reached']:.0%} of {arm['seeds']}",
        "loss at equal updates": wording.loss(arm["final_loss"]),
        "learning rate": "unknown" if rate is None else f"{rate:.3g}x",
        "verdict": "" if arm["techniques"] == BASELINE else arm["verdict"],
    }


def _ratio(arm: Mapping[str, Any], name: str) -> str:
    return wording.ratio(Ratio(value=arm[name], low=arm[f"{name}_low"], high=arm[f"{name}_high"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, action="append", default=[], metavar="FOLDER")
    FOLDER.mkdir(exist_ok=True)
    for folder in parser.parse_args().keep:
        text = (folder / "worth.json").read_text(encoding="utf-8")
        (FOLDER / f"{json.loads(text)[0]['workload'].replace('/', '-')}.json").write_text(text, encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(f"rendered {PAGE}")


if __name__ == "__main__":
    main()
