"""What techniques were found to be worth: renders docs/worth-measured.md from the results in docs/worth/.

trainpace worth --model gpt2/nano --technique muon ... --minutes 30
python -m tests.worth_page --keep runs/RUN_ID    # put what it has found to what is kept, and render the page
python -m tests.worth_page --same 6              # compare the baseline with itself so often, and render the page
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.spec import BASELINE, Plan, WorkloadSpec
from harness.learning.curve import Asked, Training
from harness.learning.training import Trainings, divided
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from reports.text import listing
from reports.wording import worth as wording
from results import worth as worths
from results.worth import Ratio
from tests import ROOT

FOLDER = ROOT / "docs" / "worth"
PAGE = ROOT / "docs" / "worth-measured.md"
SAME = FOLDER / "same.json"

SEEDS, UPDATES, RATE = 5, 300, 10.0
"""For each side when the baseline is compared with itself: the number of trainings, the updates that define the target
loss, and the learning rate over the workload's."""

AGAIN = "again"

HEAD = """\
# What techniques were worth

Time to the same loss on held-out text over the baseline's, [found](worth.md) by `trainpace worth` on two cores of an
Intel Xeon. Ratios are arm over baseline, below 1 is better, with bounds that hold for all arms of a table together with
95 %.

```
trainpace worth --model gpt2/nano --technique muon --technique adam --technique lion --technique layer_drop \\
    --technique distill --minutes 30
python -m tests.worth_page --keep runs/RUN_ID
```"""

OF_SAME = """\
## The baseline against itself

gpt2/nano on {seeds} seeds against gpt2/nano on {seeds} others, to the loss that the first have after {updates} updates:
whatever is found is chance, and of bounds that hold 95 of 100 times one in twenty leaves out 1. Here {held} of {count}
hold it.

```
python -m tests.worth_page --same {count}
```"""


def page() -> str:
    """The page, with a table for each model."""
    parts = [HEAD]
    for file in sorted(set(FOLDER.glob("*.json")) - {SAME}):
        arms = json.loads(file.read_text(encoding="utf-8"))
        first = arms[0]
        parts.append(f"## {first['workload']}")
        loss, seeds = first["target_loss"], first["seeds"]
        parts.append(f"To held-out loss {loss:.3f}, which the baseline's median seed of {seeds} reached.")
        parts.append(listing.markdown([_shown(arm) for arm in arms]))
    if SAME.exists():
        found = [Ratio(**item) for item in json.loads(SAME.read_text(encoding="utf-8"))]
        held = sum((item.low or 0.0) <= 1 <= (item.high or math.inf) for item in found)
        parts.append(OF_SAME.format(seeds=SEEDS, updates=UPDATES, held=held, count=len(found)))
        rows = [{"comparison": str(number), "updates": wording.ratio(item)} for number, item in enumerate(found, 1)]
        parts.append(listing.markdown(rows))
    return "\n\n".join(parts) + "\n"


def same(count: int) -> list[Ratio]:
    """`count` times, the updates of the baseline until a loss over those of the same baseline with other seeds."""
    plan = Plan(name="same", workloads=(WorkloadSpec(model="gpt2/nano"),), compositions=(), device="cpu")
    found = []
    with ForkServer() as fork_server, tempfile.TemporaryDirectory(prefix="trainpace-same-") as folder:
        prepared = prepare(plan, fork_server)
        entry, _ = divided(prepared.entries[0], fork_server)
        trainings = Trainings(prepared.host, entry, fork_server, Path(folder) / "arms.log")
        for number in range(count):
            first = 2 * SEEDS * number
            asked = [Asked(techniques=(), seed=first + seed, rate=RATE, updates=UPDATES) for seed in range(2 * SEEDS)]
            made = list(trainings.run(asked[:SEEDS]))
            target = worths.usual_loss(made, UPDATES)
            assert target is not None
            reached = {item.asked.seed for item in made if worths.reaches(item, target)}
            due = [dataclasses.replace(item, until_loss=target) for item in asked if item.seed not in reached]
            made = worths.longest([*made, *trainings.run(due)])
            found.append(worths.updates_ratios([_renamed(item, first) for item in made], target)[AGAIN])
            print(f"  {number + 1}: {wording.ratio(found[-1])}", flush=True)
    return found


def _renamed(training: Training, first: int) -> Training:
    """The training as it is; one on a later seed becomes that of another arm, on a seed of the baseline."""
    seed = training.asked.seed - first
    if seed < SEEDS:
        return training
    asked = dataclasses.replace(training.asked, seed=first + seed - SEEDS, techniques=(AGAIN,))
    return dataclasses.replace(training, asked=asked)


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
    parser.add_argument("--same", type=int, default=0)
    options = parser.parse_args()
    if options.same:
        rows = [dataclasses.asdict(item) for item in same(options.same)]
        SAME.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for folder in options.keep:
        text = (folder / "worth.json").read_text(encoding="utf-8")
        (FOLDER / f"{json.loads(text)[0]['workload'].replace('/', '-')}.json").write_text(text, encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(f"rendered {PAGE}")


if __name__ == "__main__":
    main()
