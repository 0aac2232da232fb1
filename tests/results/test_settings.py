"""A team's thresholds: anything invalid is refused, by name, before anything runs."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from results import settings
from results.settings import Settings

TODAY = date(2026, 6, 1)

WHOLE = """
[tool.trainpace.gate]
models = ["train.py:model"]
tolerance = 0.02
harm = 0.05
memory = 0.01
budget = 120
strict = true
acknowledge = "accepted.toml"

[tool.trainpace.gate.workloads."gpt2/tiny"]
harm = 0.08
"""

ACCEPTED = """
[[acknowledge]]
workload = "gpt2/tiny"
slowdown = 0.1
reason = "the new tokenizer is worth it"
expires = 2026-07-01

[[acknowledge]]
workload = "train.py:model"
slowdown = 0.2
reason = "old"
expires = 2026-01-01
"""


def written(folder: Path, text: str, accepted: str = ACCEPTED) -> Settings:
    (folder / "pyproject.toml").write_text(text)
    (folder / "accepted.toml").write_text(accepted)
    (folder / "deep" / "er").mkdir(parents=True, exist_ok=True)
    return settings.find(folder / "deep" / "er")


def test_the_nearest_file_above_is_read(tmp_path: Path) -> None:
    found = written(tmp_path, WHOLE)
    assert (found.models, found.budget, found.strict) == (("train.py:model",), 120.0, True)
    limits = found.limits("train.py:model", {}, TODAY)
    assert (limits.time.tolerance, limits.time.harm, limits.memory) == (0.02, 0.05, 0.01)


def test_without_any_the_defaults_hold(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    limits = settings.find(tmp_path).limits("gpt2/tiny", {}, TODAY)
    assert (limits.time.tolerance, limits.time.harm, limits.memory) == (0.01, 0.03, 0.005)


def test_the_command_line_goes_before_a_workloads_own_and_that_before_all(tmp_path: Path) -> None:
    found = written(tmp_path, WHOLE)
    later = date(2026, 7, 2)
    assert found.limits("train.py:model", {"harm": None}, later).time.harm == 0.05
    assert found.limits("gpt2/tiny", {"harm": None}, later).time.harm == 0.08
    assert found.limits("gpt2/tiny", {"harm": 0.5}, later).time.harm == 0.5


def test_an_acknowledged_slow_down_shifts_the_margins_until_it_expires(tmp_path: Path) -> None:
    found = written(tmp_path, WHOLE)
    time = found.limits("gpt2/tiny", {}, TODAY).time
    assert time.tolerance == pytest.approx(1.1 * 1.02 - 1) and time.harm == pytest.approx(1.1 * 1.08 - 1)
    assert found.limits("gpt2/tiny", {}, date(2026, 7, 2)).time.tolerance == 0.02
    assert found.limits("train.py:model", {}, TODAY).time.tolerance == 0.02
    assert settings.described(found, TODAY) == [
        "gpt2/tiny may be 10.0% slower until 2026-07-01: the new tokenizer is worth it",
        "the acknowledged slow-down of train.py:model expired on 2026-01-01: old",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.trainpace.gate]\ntolerence = 0.1", "'tolerence'.*unknown.*tolerance, harm, memory, models"),
        ("[tool.trainpace.gate]\ntolerance = '1%'", "tolerance '1%'"),
        ("[tool.trainpace.gate]\ntolerance = -0.1", "tolerance -0.1"),
        ("[tool.trainpace.gate]\ntolerance = true", "tolerance True"),
        ("[tool.trainpace.gate]\ntolerance = 0.05", "tolerance 0.05 with harm 0.03"),
        ("[tool.trainpace.gate]\nmodels = 'gpt2/tiny'", "models 'gpt2/tiny'"),
        ("[tool.trainpace.gate]\nmodels = [1]", "models of"),
        ("[tool.trainpace.gate]\nstrict = 1", "strict 1"),
        ("[tool.trainpace.gate]\nacknowledge = 'none.toml'", "none.toml"),
        ("[tool.trainpace.gate.workloads.x]\nmemry = 1", "'memry'"),
        ("[tool.trainpace.gate]\nworkloads = 1", "workloads 1"),
        ("[tool.trainpace]\ngate = 1", "not a table"),
        ("[tool]\ntrainpace = 1", "not a table"),
        ("[tool.trainpace.gate]\nharm = 4", "harm 4 .* not a share below 1"),
        ("[tool.trainpace.gate]\nharm = inf", "harm inf"),
        ("[tool.trainpace.gate]\nbudget = 0", "budget 0"),
        ("[tool.trainpace.gate", "not valid TOML"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        written(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[acknowledge]]\nworkload='a'\nslowdown=0.1\nexpires=2030-01-01", "lacks reason"),
        ("[[acknowledge]]\nworkload='a'\nslowdown=0.1\nreason='r'\nexpires='2030-01-01'", "without quotes"),
        ("[[acknowledge]]\nworkload='a'\nslowdown='x'\nreason='r'\nexpires=2030-01-01", "slowdown 'x'"),
        ("[[acknowledge]]\nwork='a'", "'work'"),
        ("[[acknow", "cannot be read"),
        ("acknowledge = 5", "no .*acknowledge.* tables"),
        ("", "no .*acknowledge.* tables"),
        ("[[acknowledge]]\nworkload='a'\nslowdown=4\nreason='r'\nexpires=2030-01-01", "slowdown 4"),
    ],
)
def test_an_acknowledgement_says_why_and_until_when(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        written(tmp_path, WHOLE, text)


def test_models_have_to_come_from_somewhere() -> None:
    assert settings.merged_models(Settings(models=("a",)), ()) == ("a",)
    assert settings.merged_models(Settings(models=("a",)), ["b"]) == ("b",)
    with pytest.raises(ValueError, match="--model"):
        settings.merged_models(Settings(), ())
