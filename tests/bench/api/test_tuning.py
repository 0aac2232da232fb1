"""A tuning finds what helps, confirms it, and never accepts what does less work."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

import tests.planted  # noqa: F401  candidates are composed in this process too
from bench import api
from bench.api import asking, climb, confirming
from bench.api.stages import Stages
from bench.cli.app import app
from bench.facts import Objective
from bench.recipe import read
from bench.spec import WorkloadSpec
from harness.heats import conformance
from results.ladder import Confirmation, Gain, Rung, Tried
from tests import ROOT
from tests.judge_page import TRAIN

DROWSY = f"{ROOT / 'tests' / 'drowsy.py'}:model"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = dataclasses.replace(conformance.PROTOCOL, warmup_min_steps=2, rounds=6, rounds_min=3, certify_steps=3)
    monkeypatch.setattr(climb, "PROTOCOL", brief)
    monkeypatch.setattr(confirming, "PROTOCOL", brief)


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.usefixtures("short", "undisturbed")
def test_what_helps_is_found_and_confirmed_and_what_does_less_is_not(text_folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = api.tune(
        DROWSY,
        minutes=3,
        techniques=["planted_awake", "planted_awake_by_half", "accumulate_2", "schedule_constant"],
        modules=["tests.planted"],
        data=str(text_folder),
        device="cpu",
        out=tmp_path,
        say=said.append,
        batch=4,
        sequence=32,
    )
    assert made is not None
    assert made.techniques == ("planted_awake",)
    found = made.ladder.confirmation
    assert found is not None and found.whole.helps and found.whole.repetitions >= 3
    assert found.without["planted_awake"].gain.hurts
    # The leader of a heat is replayed, so an arm that does less work never joins; where it led, its reason says why.
    for rung in made.ladder.rungs:
        assert "planted_awake_by_half" not in rung.after
        by_half = [item for item in rung.tried if "planted_awake_by_half" in item.techniques]
        # An arm that is not faster beyond doubt does not lead.
        others = [1.0, *(item.gain.low or 0.0 for item in rung.tried if item not in by_half)]
        for item in by_half:
            assert (item.gain.low or 0.0) <= max(others) or "samples an update" in str(item.reason)
    kept = json.loads((made.folder / "recipe.json").read_text())
    assert kept["techniques"] == ["planted_awake"] and kept["speedup_low"] > 1
    # Whatever joined by chance is removed again.
    assert kept["rungs"][0]["added"] == ["planted_awake"]
    assert "planted_awake" in (made.folder / "report.html").read_text()
    assert said[0].startswith("heat 1: + planted_awake")
    asked = WorkloadSpec(model=DROWSY, corpus=str(text_folder), batch=4, sequence=32)
    assert read(made.folder / "recipe.json").workload == asked
    # Nothing is measured again: the same ladder follows from the records alone.
    # The arms of a heat are those on record, although the time left for it is different now.
    asked_file = made.folder / "asked.json"
    asked_file.write_text(json.dumps(json.loads(asked_file.read_text()) | {"minutes": 2.0}))
    again = api.tune(resume=made.folder, modules=["tests.planted"], say=said.append)
    assert again is not None
    assert [rung.tried for rung in again.ladder.rungs] == [rung.tried for rung in made.ladder.rungs]
    assert again.ladder.whole == made.ladder.whole


EVERY_SIXTH = """

class EverySixth(torch.optim.Optimizer):
    calls = 0

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": RATE})

    @torch.no_grad()
    def step(self, closure=None):
        self.calls += 1
        if self.calls % 6 == 0:
            for group in self.param_groups:
                for item in group["params"]:
                    item.sub_(group["lr"] * item.grad)
"""


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.usefixtures("short", "undisturbed")
def test_what_learns_faster_joins_by_the_time_to_the_same_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer that makes one update in six learns six times as slowly as plain SGD."""
    brief = dataclasses.replace(conformance.PROTOCOL, rounds=4, rounds_min=3, certify_steps=3)
    monkeypatch.setattr(asking, "PROTOCOL", brief)
    monkeypatch.setattr(asking, "ARM_S", 10.0)
    # At such a low rate no arm comes close to the best possible loss, where noise would decide.
    train = TRAIN.replace("RATE = 0.01", "RATE = 0.0003").replace("WIDTH = 32", "WIDTH = 4")
    slow = train.replace("lambda parameters: torch.optim.SGD(", "EverySixth(")
    (tmp_path / "digits.py").write_text(slow.replace("EverySixth(parameters, lr=RATE)", "EverySixth") + EVERY_SIXTH)
    said: list[str] = []
    made = api.tune(
        f"{tmp_path / 'digits.py'}:digits",
        minutes=3,
        objective="worth",
        techniques=["sgd", "schedule_constant"],
        device="cpu",
        out=tmp_path,
        say=said.append,
    )
    assert made is not None
    learnt = next(rung for rung in made.ladder.rungs if rung.objective is Objective.WORTH)
    (own,) = learnt.tried
    assert own.techniques == ("sgd",) and own.gain.speedup is not None and own.gain.speedup > 1.5
    kept = json.loads((made.folder / "recipe.json").read_text())
    assert kept["objective"] == "worth" and kept["learning_rate"] > 0
    # How clearly few seeds and short heats show it, and whether time is left to confirm it, depends on the machine.
    assert own.gain.helps or not made.techniques
    if made.ladder.confirmation:
        assert learnt.after == made.techniques == ("sgd",) and learnt.gain.helps
        assert made.ladder.confirmation.whole.helps and kept["speedup_low"] > 1
        assert "the speed, confirmed over" in made.text()


@pytest.mark.long
@pytest.mark.usefixtures("short", "undisturbed")
def test_idle_techniques_make_an_empty_recipe(text_folder: Path, tmp_path: Path) -> None:
    made = api.tune(
        "gpt2/nano",
        minutes=2,
        techniques=[f"idle_{number}" for number in range(1, 7)],
        modules=["bench.idle"],
        data=str(text_folder),
        device="cpu",
        out=tmp_path,
        say=lambda line: None,
        batch=4,
        sequence=32,
    )
    assert made is not None
    assert made.techniques == ()
    assert made.ladder.whole.speedup == 1.0
    refused = CliRunner().invoke(app, ["run", "--recipe", str(made.folder / "recipe.json")])
    assert refused.exit_code == 2 and "is empty" in refused.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no model is named"),
        (["--model", "gpt2/nano", "--technique", "amp_bf61"], "did you mean amp_bf16"),
        (["--model", "gpt2/nano", "--allow", "rule"], "allowed change 'rule' is unknown"),
        (["--model", "gpt2/nano", "--memory", "much"], "memory 'much'"),
        pytest.param(
            ["--model", "gpt2/nano", "--objective", "energy"],
            "objective 'energy' cannot be measured here",
            marks=pytest.mark.long,
        ),
        (["--resume", "nowhere"], "is not a folder of `trainpace tune`"),
        (["--resume", "nowhere", "--objective", "worth"], "leave out --model"),
        (["--resume", "nowhere", "--model", "gpt2/nano"], "leave out --model"),
    ],
)
@pytest.mark.usefixtures("lent")
def test_bad_input_is_one_line_and_exit_2(words: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["tune", *words])
    assert done.exit_code == 2
    assert told in done.output and done.output.count("\n") == 1


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    for command in ("run", "gate"):
        done = CliRunner().invoke(app, [command, "--recipe", str(tmp_path / "recipe.json")])
        assert done.exit_code == 2 and "is not a recipe" in done.output


def test_what_seemed_better_and_is_not_confirmed_leaves_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of many candidates is tried again; if there is no time to confirm it, the confirmed recipe stays."""
    sound = Confirmation(techniques=("a",), whole=Gain(speedup=1.1, low=1.05, high=1.15, repetitions=6))
    hasty = Confirmation(techniques=("a", "b"), whole=Gain(speedup=1.1, low=0.9, high=1.3, repetitions=1))
    better = Tried(techniques=("a", "b"), gain=Gain(speedup=1.05, low=1.01, high=1.09, repetitions=3))
    left_s = types.SimpleNamespace(left_s=lambda: 30.0)
    first = Rung(before=(), after=("a",), tried=(better,), late=False, seconds=1.0, arm_s=1.0)
    for outcomes, chosen in (
        ([(sound, better), (hasty, None)], ("a",)),
        ([(sound, better), (dataclasses.replace(hasty, whole=sound.whole), None)], ("a", "b")),
        ([(hasty, None)], ("a", "b")),
    ):
        rungs, told = [first], list(outcomes)
        monkeypatch.setattr(confirming, "_confirmation", lambda *_, told=told: told.pop(0))
        found = confirming.confirmed(cast(Stages, left_s), outcomes[0][0].techniques, rungs, lambda rung: None)
        assert found.techniques == chosen and not told
        assert len(rungs) == (2 if len(outcomes) == 2 and chosen == ("a", "b") else 1)
