"""The best language model in a given time: a plan shown beforehand, and the trained model afterwards."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from bench import api
from bench.api import sizing
from bench.causes import Unfinished
from bench.cli.app import app
from bench.plans import sizes_of
from bench.spec import Overrides
from harness.learning.long_training import POINTS
from results import day as days

UPDATES = 800


@pytest.mark.long
@pytest.mark.usefixtures("undisturbed")
def test_a_day_is_planned_and_trained_and_goes_on(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    overrides = Overrides(corpus=str(text_folder), batch=4, sequence=32)
    monkeypatch.setattr("bench.api.days.sizes_of", functools.partial(sizes_of, most_parameters=2_000_000))
    made = api.day("gpt2", updates=UPDATES, overrides=overrides, device="cpu", out=tmp_path, say=said.append)
    assert made is not None
    plan = json.loads((made.folder / "plan.json").read_text())
    assert plan["reached_loss"] is None and plan["model"] == made.day.chosen
    assert plan["predicted_loss_low"] < plan["predicted_loss"] < plan["predicted_loss_high"]
    known = {item.model: item.expected for item in made.day.candidates}
    assert list(known) == ["gpt2/nano", "gpt2/tiny"] and all(known.values())
    # With the same number of updates, the larger model learns more.
    assert made.day.chosen == "gpt2/tiny"
    counts = Counter(line.partition(" updates")[0].partition(", ")[2] for line in said if "learning rate" in line)
    # For 200 updates, the next higher rate is tried too.
    assert counts.keys() == {"100", "200", "400"} and (counts["200"], counts["400"]) == (4, 2)
    assert 2 * sizing.RATES <= counts["100"] <= 2 * sizing.MOST_RATES

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bench.api.days.LongTraining.run", interrupted)
        with pytest.raises(Unfinished, match=r"continue with: trainpace day --go --resume"):
            api.day(resume=made.folder, go=True, say=said.append)
    done = api.day(resume=made.folder, go=True, say=said.append)
    assert done is not None
    assert done.folder == made.folder and done.day.candidates == made.day.candidates
    reached, expected = done.day.reached, done.day.candidate.expected
    assert reached is not None and expected is not None and reached.updates == UPDATES
    assert reached.loss == pytest.approx(expected.loss, rel=0.1) and reached.loss < 0.6 * math.log(256)
    assert days.read(made.folder) == done.day
    curve = pd.read_parquet(made.folder / "curve.parquet")
    assert len(curve) == POINTS + 1 and curve["held_out_loss"].iloc[-1] == reached.loss
    events = EventAccumulator(str(made.folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/held_out")] == list(curve["updates"])
    assert (made.folder / "model" / "model.safetensors").exists()
    page = (made.folder / "report.html").read_text()
    assert "The training" in page and page.count("<pre>") == 3
    assert "Training ended because it has taken all its updates" in done.text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "bert"], "model 'bert' does not generate text: give a causal language model, gpt2, llama, moe"),
        (["--model", "gpt2/huge"], "gpt2 has no size 'huge': give one of nano, tiny"),
        (["--updates", "99"], "99 updates are too few to predict the loss from: give 800 or more"),
        (["--hours", "1", "--minutes", "1"], "--hours and --minutes set the same thing"),
        (["--technique", "muno"], "did you mean muon"),
        (["--technique", "ddp_2"], "ddp_2 trains with several processes"),
        (["--technique", "schedule_cosine"], "schedule_cosine changes the schedule, which `trainpace day` decides"),
        (["--recipe", "none.json"], "'none.json' is not a recipe"),
        (["--resume", "nowhere"], "'nowhere' is not a folder of `trainpace day`"),
    ],
)
@pytest.mark.usefixtures("lent")
def test_bad_input_is_one_line_and_exit_2(words: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["day", *words])
    assert done.exit_code == 2
    assert told in done.output and done.output.count("\n") == 1
