"""Measure every composition of eight techniques, to compare a tuning's recipe with the best possible one.

    python -m tests.exhaustive --model gpt2/mini     # measure all compositions of a model, if they are not kept
    python -m tests.exhaustive --tuned runs/RUN_ID   # put what a tuning has found beside them
    python -m tests.exhaustive --race gpt2/mini      # measure the best of both in one run

All compositions run once, each in a fresh process interleaved with the baseline, as in any run. Those that came close
to the best then run again, until each has a handful of repetitions or the time is up. A race is one more run of the
best of them and of what tunings have found. The measurements are kept in docs/exhaustive/, from which
docs/exhaustive.md is rendered.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.api.climb import PROTOCOL
from bench.composition import compose
from bench.corpus import cache_folder
from bench.spec import BASELINE, Plan, WorkloadSpec
from harness.heats.sweep import Choose, Sweep
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record
from reports.text import listing
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
"""Techniques that have an effect on a CPU, or might have one."""

NEAR = 0.95
"""A composition runs again if its first repetition reaches this share of the best pace: processes differ by 2 to 4 %.
"""

MOST_AGAIN, REPETITIONS = 12, 5

FOLDER = ROOT / "docs" / "exhaustive"
RECIPES = FOLDER / "recipes.json"
RACES = FOLDER / "races.json"
PAGE = ROOT / "docs" / "exhaustive.md"

BEST = 5
"""The number of compositions of each model that the page shows."""

HEAD = """\
# How near a tuning comes to the best there is

All compositions of eight techniques that have shown something on a CPU, each in fresh processes beside the baseline,
and what `trainpace tune` has found in the time that it was given. All compositions were measured on two cores of an AMD
EPYC without bfloat16; the best of so many was partly lucky. So the best of them run once more, beside what tunings have
found so far.

```
python -m tests.exhaustive --model gpt2/mini     # measure all compositions of a model
trainpace tune --model gpt2/mini --minutes 10
trainpace tune --model gpt2/mini --minutes 10 --seed 1
python -m tests.exhaustive --tuned runs/ONE --tuned runs/OTHER   # put what they found beside them
python -m tests.exhaustive --race gpt2/mini      # the best of both in one run, and render this page
```"""


def compositions() -> list[tuple[str, ...]]:
    """All valid compositions, each in the order in which its techniques are applied."""
    found = []
    for count in range(1, len(TECHNIQUES) + 1):
        for names in itertools.combinations(TECHNIQUES, count):
            try:
                found.append(tuple(item.name for item in compose(names)))
            except ValueError:
                continue
    return found


def measure(model: str, minutes: float) -> list[Record]:
    """The records of all compositions of a model."""

    def again(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
        found = contrasts(blocks(records), BASELINE)
        best = max(item.estimate for item in found.values())
        near = [label for label, item in found.items() if item.estimate > best + math.log(NEAR)]
        near.sort(key=lambda label: -found[label].estimate)
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
    return _swept(plan, again)[0]


def race(model: str) -> list[dict[str, Any]]:
    """The pace of the best compositions and of all recipes on file, over the baseline's and over the fastest's, in one
    run."""
    recipes = [row["techniques"] for row in _read(RECIPES) if row["model"] == model]
    kept = [row["techniques"] for row in _read(file_of(model)) if row["repetitions"] > 1][:BEST]
    labels = [label for label in dict.fromkeys([*recipes, *kept]) if label != BASELINE]
    plan = Plan(
        name="race",
        workloads=(WorkloadSpec(model=model),),
        compositions=tuple(tuple(label.split("+")) for label in labels),
        repetitions=REPETITIONS,
        protocol=PROTOCOL,
    )
    records, device_name = _swept(plan, lambda _: [])
    made: list[dict[str, Any]] = rows(records)
    best = made[0]["techniques"]
    against = contrasts(blocks(records), best)
    for row in made:
        found = against.get(row["techniques"])
        row |= {"model": model, "device": device_name}
        row["over_best"] = 1.0 if found is None else round(math.exp(found.estimate), 4)
        row["over_best_low"], row["over_best_high"] = _bounds(found) if found else (1.0, 1.0)
    return made


def _swept(plan: Plan, choose: Choose) -> tuple[list[Record], str]:
    """The records, and the machine in words."""
    with ForkServer() as fork_server, tempfile.TemporaryDirectory(prefix="trainpace-exhaustive-") as folder:
        prepared = prepare(plan, fork_server)
        sweep = Sweep(
            prepared,
            run_id=plan.name,
            keep=lambda record: print(f"  {record.repetition} {record.techniques}: {record.status}", flush=True),
            choose=choose,
            shared_cache=cache_folder() / "compiled",
            log=Path(folder) / "arms.log",
        )
        sweep.run(fork_server)
    return sweep.records, prepared.machine.device_name


def rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Speed-ups over the baseline, the fastest first, each with its single interval."""
    found = contrasts(blocks(records), BASELINE)
    counts = {
        label: len({item.repetition for item in records if item.techniques == label and not item.disturbed})
        for label in found
    }

    def row(label: str, item: Contrast) -> dict[str, Any]:
        low, high = _bounds(item)
        return {
            "techniques": label,
            "speedup": round(math.exp(item.estimate), 4),
            "speedup_low": low,
            "speedup_high": high,
            "repetitions": counts[label],
        }

    return [row(label, found[label]) for label in sorted(found, key=lambda label: -found[label].estimate)]


def _bounds(item: Contrast) -> tuple[float | None, ...]:
    return tuple(None if bound is None else round(math.exp(bound), 4) for bound in (item.low, item.high))


def keep_recipe(folder: Path) -> None:
    """Add the result of a tuning to those on file."""
    found = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    row = {
        "model": asked["workload"]["model"],
        "minutes": asked["minutes"],
        "seed": asked["seed"],
        "device": found["ladder"]["device_name"],
        "techniques": "+".join(item.name for item in compose(found["techniques"])) or BASELINE,
        **{name: found[name] for name in ("speedup", "speedup_low", "speedup_high", "product_of_rungs")},
    }
    same = ("model", "minutes", "seed", "device")
    kept = [item for item in _read(RECIPES) if any(item[name] != row[name] for name in same)]
    RECIPES.write_text(json.dumps([*kept, row], indent=1) + "\n", encoding="utf-8")


def _read(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return found


def file_of(model: str) -> Path:
    """The file for a model's compositions. A user's model is named by its own file."""
    named = Path(model.partition(".py:")[0]).name if ".py:" in model else model
    return FOLDER / f"{named.replace('/', '-')}.json"


def page() -> str:
    """The page with every model's best compositions, and what tunings have found."""
    parts = [HEAD]
    for file in sorted(FOLDER.glob("*.json")):
        if file in (RECIPES, RACES):
            continue
        kept = _read(file)
        several = [row for row in kept if row["repetitions"] > 1]
        parts += [f"## {file.stem}", f"The best of {len(kept)} compositions:"]
        parts.append(listing.markdown([_shown(row) for row in several[:BEST]]))
        if found := [row for row in _read(RECIPES) if file_of(row["model"]) == file]:
            parts.append("What `trainpace tune` has found:")
            parts.append(listing.markdown([_tuned(row, kept, several[0]["speedup"]) for row in found]))
        if raced := [row for row in _read(RACES) if file_of(row["model"]) == file]:
            parts.append(f"The best of them and what tunings have found, in one run ({raced[0]['device']}):")
            parts.append(listing.markdown([_raced(row) for row in raced]))
    return "\n\n".join(parts) + "\n"


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    pace = quantity.ratio_interval(row["speedup"], row["speedup_low"], row["speedup_high"])
    return {"composition": row["techniques"], "pace": pace, "repetitions": row["repetitions"]}


def _tuned(row: Mapping[str, Any], kept: Sequence[Mapping[str, Any]], best: float) -> dict[str, Any]:
    own = next((item["speedup"] for item in kept if item["techniques"] == row["techniques"]), None)
    own = 1.0 if row["techniques"] == BASELINE else own
    product = row["product_of_rungs"]
    return {
        "minutes": f"{row['minutes']:g}",
        "seed": row["seed"],
        "on": row["device"],
        "recipe": row["techniques"],
        "confirmed": quantity.ratio_interval(row["speedup"], row["speedup_low"], row["speedup_high"]),
        "product of its rungs": quantity.UNKNOWN if product is None else quantity.ratio(product),
        "of the best above": "it is none of these" if own is None else f"{own / best:.3f}",
    }


def _raced(row: Mapping[str, Any]) -> dict[str, Any]:
    over_best = [row[name] for name in ("over_best", "over_best_low", "over_best_high")]
    return _shown(row) | {"over the fastest": quantity.ratio_interval(*over_best)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Measure all compositions of it, unless they are kept.")
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--tuned", type=Path, action="append", default=[], help="The folder of a tuning.")
    parser.add_argument("--race", metavar="MODEL", help="Measure all recipes and the best compositions in one run.")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if options.model and not file_of(options.model).exists():
        made = rows(measure(options.model, options.minutes))
        file_of(options.model).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    for folder in options.tuned:
        keep_recipe(folder)
    if options.race:
        made = race(options.race)
        kept = [row for row in _read(RACES) if row["model"] != options.race]
        RACES.write_text(json.dumps([*kept, *made], indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(f"rendered {PAGE}")


if __name__ == "__main__":
    main()
