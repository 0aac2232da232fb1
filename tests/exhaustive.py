"""Every composition of eight techniques, to hold a tuning's recipe against the best there is.

    python -m tests.exhaustive --model gpt2/mini --recipe runs/RUN_ID/recipe.json

All compositions run once, each in a fresh process beside the baseline, as in any run. Those that came near to the best,
and the recipes, then run again, until each has a handful of repetitions or the time is up. What was measured of each is
kept in docs/exhaustive/, and `--recipe` may be given later too: what is kept is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.api.climb import PROTOCOL
from bench.composition import compose
from bench.corpus import cache_folder
from bench.recipe import read
from bench.spec import BASELINE, Plan, WorkloadSpec
from harness.heats.sweep import Sweep
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record
from reports.wording import quantity
from results.compare import blocks
from results.contrasts import Contrast, contrasts
from tests import ROOT

TECHNIQUES = (
    "compile",
    "adamw_fused",
    "adamw_foreach",
    "optimizer_in_backward",
    "attention_eager",
    "sdpa_math",
    "prefetch_thread",
    "workers_2",
)
"""What has shown something on a CPU, or might."""

NEAR = 0.95
"""Of the best pace, so much in the first repetition lets a composition run again: processes differ by 2 to 4 %."""

MOST_AGAIN, REPETITIONS = 12, 5


def compositions() -> list[tuple[str, ...]]:
    """All that go together, in the order in which they are applied."""
    found = []
    for count in range(1, len(TECHNIQUES) + 1):
        for names in itertools.combinations(TECHNIQUES, count):
            try:
                found.append(tuple(item.name for item in compose(names)))
            except ValueError:
                continue
    return found


def measure(model: str, recipes: Sequence[str], minutes: float) -> list[Record]:
    """The records of all of it."""

    def again(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
        found = contrasts(blocks(records), BASELINE)
        best = max(item.estimate for item in found.values())
        near = [label for label, item in found.items() if item.estimate > best + math.log(NEAR) or label in recipes]
        near.sort(key=lambda label: (label not in recipes, -found[label].estimate))
        taken = len({record.repetition for record in records})
        return [(model, near[:MOST_AGAIN])] if taken < REPETITIONS else []

    plan = Plan(
        name="exhaustive",
        workloads=(WorkloadSpec(model=model),),
        compositions=tuple(compositions()),
        repetitions=1,
        budget_s=60 * minutes,
        protocol=PROTOCOL,
    )
    with ForkServer() as fork_server, tempfile.TemporaryDirectory(prefix="trainpace-exhaustive-") as folder:
        sweep = Sweep(
            prepare(plan, fork_server),
            run_id="exhaustive",
            keep=lambda record: print(f"  {record.repetition} {record.techniques}: {record.status}", flush=True),
            choose=again,
            shared_cache=cache_folder() / "compiled",
            log=Path(folder) / "arms.log",
        )
        sweep.run(fork_server)
    return sweep.records


def rows(records: Sequence[Record]) -> list[dict[str, object]]:
    """The fastest first; speed-ups over the baseline, with the bounds of each by itself."""
    found = contrasts(blocks(records), BASELINE)
    counts = {
        label: len({item.repetition for item in records if item.techniques == label and not item.disturbed})
        for label in found
    }

    def row(label: str, item: Contrast) -> dict[str, object]:
        bounds = [None if bound is None else round(math.exp(bound), 4) for bound in (item.low, item.high)]
        return {
            "techniques": label,
            "speedup": round(math.exp(item.estimate), 4),
            "speedup_low": bounds[0],
            "speedup_high": bounds[1],
            "repetitions": counts[label],
        }

    return [row(label, found[label]) for label in sorted(found, key=lambda label: -found[label].estimate)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2/mini")
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--recipe", type=Path, action="append", default=[])
    options = parser.parse_args()
    recipes = ["+".join(item.name for item in compose(read(file).techniques)) for file in options.recipe]
    # Of a model of one's own the file is its name.
    named = Path(options.model.partition(".py:")[0]).name if ".py:" in options.model else options.model
    file = ROOT / "docs" / "exhaustive" / f"{named.replace('/', '-')}.json"
    if not file.exists():
        made = rows(measure(options.model, recipes, options.minutes))
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    kept = json.loads(file.read_text(encoding="utf-8"))
    several = [row for row in kept if row["repetitions"] > 1]
    for row in several[:MOST_AGAIN]:
        pace = quantity.ratio_interval(row["speedup"], row["speedup_low"], row["speedup_high"])
        print(f"{row['techniques']}: {pace} on {row['repetitions']} repetitions")
    for label in recipes:
        own = next((row for row in kept if row["techniques"] == label), None)
        if own is None:
            print(f"recipe {label} is none of these {len(kept)} compositions")
        else:
            print(f"recipe {label}: {own['speedup'] / several[0]['speedup']:.3f} of the best pace")


if __name__ == "__main__":
    main()
