"""How often does a tuning find something when there is nothing to find? `python -m tests.idle_tunings --count 20`."""

from __future__ import annotations

import argparse
import tempfile

from bench import api
from bench.idle import COMPOSITIONS
from reports.wording import ladder as wording

OFFERED = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--model", default="gpt2/nano")
    parser.add_argument("--minutes", type=float, default=2.0)
    asked = parser.parse_args()
    wrong = 0
    for seed in range(asked.count):
        with tempfile.TemporaryDirectory(prefix="trainpace-idle-") as folder:
            made = api.tune(
                asked.model,
                minutes=asked.minutes,
                techniques=[name for (name,) in COMPOSITIONS[:OFFERED]],
                modules=["bench.idle"],
                device="cpu",
                seed=seed,
                out=folder,
                say=lambda line: None,
            )
        assert made is not None
        wrong += bool(made.techniques)
        heats = ", ".join(wording.step(rung) for rung in made.ladder.rungs)
        print(f"tuning {seed + 1}: {heats}; {wording.answer(made.ladder)}", flush=True)
    print(f"{asked.count - wrong} of {asked.count} tunings found nothing, which is the truth")


if __name__ == "__main__":
    main()
