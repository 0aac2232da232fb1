"""What techniques are worth: trained for real, stored, reported, and resumed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tests.planted  # noqa: F401  compositions are made in this process too
from bench import api
from bench.api import asking
from bench.cli.app import app
from bench.spec import Overrides
from harness.heats import conformance
from results.worth import EXACT, Worth, crossing

SHAPE = Overrides(batch=4, sequence=32)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = dataclasses.replace(conformance.PROTOCOL, rounds=4, rounds_min=3, certify_steps=3)
    monkeypatch.setattr(asking, "PROTOCOL", protocol)
    monkeypatch.setattr(asking, "ARM_S", 5.0)


@pytest.mark.long
@pytest.mark.usefixtures("undisturbed", "brief")
def test_faster_steps_that_teach_less_are_worth_nothing(text_folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = api.worth(
        "llama/nano",
        ["planted_every_third", "planted_held_out", "adamw_fused"],
        minutes=1,
        seeds=3,
        rates=2,
        updates=90,
        overrides=dataclasses.replace(SHAPE, corpus=str(text_folder)),
        device="cpu",
        modules=["tests.planted"],
        out=tmp_path,
        say=said.append,
    )
    assert made is not None
    found = {item.techniques: item for item in made.answer.found}
    slow = found["planted_every_third"]
    assert slow.updates_ratio.low is not None and slow.updates_ratio.low > 1.3
    assert slow.verdict in (Worth.NEVER, Worth.LOSS, Worth.UNKNOWN)
    cheat = found["planted_held_out"]
    assert cheat.verdict is Worth.INVALID and "held out" in str(cheat.reason)
    alike = found["adamw_fused"]
    assert alike.learns_alike and alike.updates_ratio == EXACT and alike.step_ratio.value is not None
    kept = json.loads((made.folder / "worth.json").read_text())
    assert [item["techniques"] for item in kept] == ["fp32", *found]
    assert {
        "target_loss",
        "reached",
        "seeds",
        "updates_ratio",
        "time_ratio",
        "time_ratio_low",
        "time_ratio_high",
    } < set(kept[1])
    page = (made.folder / "report.html").read_text()
    assert "planted_every_third" in page and page.count("<svg") == 3
    trainings = list((made.folder / "trainings").glob("part-*.parquet"))
    # Two rates and three seeds for each, except for the one that learns like the baseline; and one more training of the
    # baseline, for a seed that had not reached the loss of the median seed.
    assert len(trainings) == 3 * (2 + 3) + 1
    asked = [training.asked for training in made.answer.trainings]
    assert len(asked) == 9 and all(item.until_loss == made.answer.target for item in asked if item.techniques)
    own = [training for training in made.answer.trainings if not training.asked.techniques]
    assert all(crossing(training, made.answer.target or 0.0) for training in own)
    assert {training.updates[-1] for training in own} > {90}
    again = api.worth(resume=made.folder, modules=["tests.planted"], say=said.append)
    assert again is not None and again.answer.found == made.answer.found
    assert list((made.folder / "trainings").glob("part-*.parquet")) == trainings


@pytest.mark.long
@pytest.mark.usefixtures("undisturbed", "brief")
def test_a_target_that_training_starts_below_is_refused(text_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"target 9 is not below the loss that training starts from \([56]\.\d+\)"):
        api.worth(
            "llama/nano",
            ["lion"],
            minutes=1,
            seeds=2,
            rates=1,
            updates=5,
            target=9.0,
            overrides=dataclasses.replace(SHAPE, corpus=str(text_folder)),
            device="cpu",
            out=tmp_path,
            say=lambda line: None,
        )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no model is named"),
        (["--model", "gpt2/nano"], "no technique is named"),
        (["--model", "gpt2/nano", "--technique", "muno"], "did you mean muon"),
        (["--model", "gpt2/nano", "--technique", "muon", "--price", "much"], "price 'much'"),
        (["--model", "gpt2/nano", "--technique", "muon", "--phase", "infer"], "learns nothing"),
        (["--resume", "nowhere"], "is not a folder of `trainpace worth`"),
        (["--resume", "nowhere", "--model", "gpt2/nano"], "leave out --model"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["worth", *words])
    assert done.exit_code == 2
    assert told in done.output and done.output.count("\n") == 1
