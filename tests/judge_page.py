"""How `trainpace judge` judges changes without effect and changes that gain a tenth: docs/judge-measured.md.

python -m tests.judge_page --nulls 40 --gains 10   # propose them one after another, keep what came of each, and render
python -m tests.judge_page                         # render the page

Each result is kept, with the ledger, as soon as it is there. After an interruption the same command continues.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reports.text import listing
from reports.wording import quantity
from results.proposal import Verdict
from tests import ROOT

FOLDER = ROOT / "docs" / "judged"
PAGE = ROOT / "docs" / "judge-measured.md"

RATE, GAIN = 0.01, 1 / 0.9
"""The base's learning rate, and the factor for a gain: at small rates, plain SGD needs fewer updates by that factor."""

TRAIN = f"""\
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from bench.workload import Workload

RATE = {RATE}
WIDTH = 32


def images():
    found = load_digits()
    return TensorDataset(torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target))


def network():
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * WIDTH, 10),
    )


def loss(model, samples):
    pictures, digits = samples
    return nn.functional.cross_entropy(model(pictures), digits)


def digits():
    return Workload(
        model=network,
        data=images,
        loss=loss,
        learning_rate=RATE,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=RATE),
        batch=64,
    )
"""

NAMES = ("pictures", "found", "samples", "WIDTH")
"""Names in the source that are changed one after another."""

HEAD = """\
# How a referee judges

Proposals of which it is known what they are worth, [judged](judge.md) one after another by `trainpace judge` on two
cores: a small convolutional network on the digits of scikit-learn, which is trained by plain SGD. What changes nothing
is a comment or another name; what gains raises the learning rate by a ninth, so that a tenth fewer updates lead to the
same loss. Each row of proposals has a ledger of its own.

```
python -m tests.judge_page --nulls 40 --gains 10
```"""


def nulls(count: int) -> Iterator[str]:
    """The source after each proposal without effect: an added comment, or a changed name."""
    text = TRAIN
    for number in range(count):
        name = NAMES[number // 2 % len(NAMES)]
        if number % 2:
            text = text.replace(f"{name}{number // 8 or ''}", f"{name}{number // 8 + 1}")
        else:
            text = f"# proposal {number}\n{text}"
        yield text


def gains(count: int) -> Iterator[str]:
    """The source after each proposal that gains, on top of those before."""
    for number in range(1, count + 1):
        yield TRAIN.replace(f"RATE = {RATE}", f"RATE = {RATE * GAIN**number}")


def judge(name: str, texts: Iterator[str], *words: str) -> None:
    """Propose one text after another, judge each against the one before, and keep the results that are not yet kept."""
    file = FOLDER / f"{name}.json"
    made: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    with tempfile.TemporaryDirectory(prefix="trainpace-judged-") as folder:
        repository, who = Path(folder) / "code", ["-c", "user.name=a", "-c", "user.email=a@b"]

        def git(*command: str) -> None:
            subprocess.run(["git", *who, *command], cwd=repository, check=True, stdout=subprocess.DEVNULL)

        repository.mkdir()
        git("init", "-q")
        for number, text in enumerate((TRAIN, *texts)):
            (repository / "train.py").write_text(text, encoding="utf-8")
            git("add", "train.py")
            git("commit", "-qm", f"proposal {number}")
            if number <= len(made):
                continue
            which = ["--model", "train.py:digits", "--base", "HEAD~1", "--head", "HEAD"]
            kept = ["--ledger", str(FOLDER / f"{name}-ledger.json"), "--out", f"{folder}/runs", "--format", "json"]
            done = subprocess.run(
                [sys.executable, "-m", "bench", "judge", *which, *kept, *words],
                cwd=repository,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            found: dict[str, Any] = json.loads(done.stdout)
            print(f"{number}: {found['verdict']}, {found['reasons'][0]}", flush=True)
            made.append(found)
            file.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def page() -> str:
    """The page with the results of proposals without effect and of those that gain."""
    parts = [HEAD]
    for name, what in (("nulls", "What changes nothing"), ("gains", "What gains a tenth in updates")):
        file = FOLDER / f"{name}.json"
        if not file.exists():
            continue
        made: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        said = {verdict: sum(item["verdict"] == verdict for item in made) for verdict in Verdict}
        counted = ", ".join(f"{count} {verdict.value}" for verdict, count in said.items() if count)
        took = quantity.duration(sum(item["seconds"] for item in made) / len(made))
        parts += [f"## {what}", f"Of {len(made)}: {counted}. Each took {took} on average."]
        parts.append(listing.markdown([_shown(number, item) for number, item in enumerate(made, 1)]))
    return "\n\n".join(parts) + "\n"


def _shown(number: int, item: Mapping[str, Any]) -> dict[str, str]:
    def ratio(name: str) -> str:
        found = item[name]
        return quantity.ratio_interval(found["value"], found["low"], found["high"]).replace("x", "", 1)

    return {
        "proposal": str(number),
        "time": ratio("time_ratio"),
        "updates": "the same" if item["learns_alike"] else ratio("updates_ratio"),
        "step": ratio("step_ratio"),
        "p": "unknown" if item["p"] is None else f"{item['p']:.2g}",
        "level": f"{item['level']:.2g}",
        "verdict": item["verdict"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nulls", type=int, default=0)
    parser.add_argument("--gains", type=int, default=0)
    parser.add_argument("--minutes", default="5", help="for each")
    asked = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    judge("nulls", nulls(asked.nulls), "--minutes", asked.minutes)
    judge("gains", gains(asked.gains), "--minutes", asked.minutes)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"rendered {PAGE}")


if __name__ == "__main__":
    main()
