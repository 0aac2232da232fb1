"""`trainpace fit` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import api
from harness.preparation import pacing
from harness.preparation.fitting import Fit
from tests.bench.cli.test_cli import inside

NANO = ("--model", "gpt2/nano", "--sequence", 32)


@pytest.mark.usefixtures("lent")
def test_a_map_of_batches_for_a_card_that_is_not_here(text_folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "fit.html"
    asked = ("fit", *NANO, "--data", text_folder, "--card", "24GB", "--card", "L40S", "--technique", "amp_bf16")
    done = inside(*asked, "--html", page)
    assert done.exit_code == 0, done.stderr
    assert "24GB, 23.4 GiB free: gpt2/nano at 32 tokens" in done.stdout
    assert "gpt2/nano at 32 tokens, batch 8 fits as it is" in done.stdout
    assert f"page: {page}" in done.stdout
    assert "What fits?" in page.read_text()
    rows = json.loads(inside(*asked, "--format", "json").stdout)
    assert [(row["room"], row["techniques"]) for row in rows] == [
        (room, label) for room in ("24GB", "L40S") for label in ("fp32", "amp_bf16")
    ]
    for row in rows:
        assert row["fits"] is True and row["reason"] is None and row["checked"] is None
        assert row["predicted_step_time_s"] is None and row["tokens_per_s"] is None
        assert 0 < row["predicted_peak_bytes"] == sum(row["parts"].values()) + (8320 << 10)
        assert row["batch"] == 8 < row["largest_batch"] < row["may_fit_up_to"]
        sizes = {item["batch"]: item["predicted_peak_bytes"] for item in row["by_batch"]}
        assert sizes[8] == row["predicted_peak_bytes"] and sorted(sizes.values()) == list(sizes.values())


@pytest.mark.long
@pytest.mark.usefixtures("lent")
def test_a_family_means_all_its_sizes_and_what_makes_one_fit_is_named(
    text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With this memory, the larger of two sizes fits only under some techniques."""
    monkeypatch.setattr(pacing, "PATIENCE_S", 0.0)
    done = inside(
        *("fit", "--model", "gpt2/nano", "--model", "gpt2/tiny", "--data", text_folder, "--memory", "40MB"),
        *("--technique", "accumulate_4", "--technique", "checkpoint_activations", "--technique", "sgd"),
    )
    assert done.exit_code == 0, done.stderr
    said = done.stdout
    assert "this machine's CPU, 38.1 MiB free: Largest batch" in said
    assert "gpt2/tiny at 64 tokens, batch 8 does not fit as it is" in said
    assert "It fits under accumulate_4 (does not change what is learned)" in said
    assert f"trainpace run --model gpt2/tiny --batch 8 --data {text_folder} --technique" in said


@pytest.mark.usefixtures("lent", "undisturbed")
@pytest.mark.long
def test_from_python(text_folder: Path) -> None:
    shown: list[Fit] = []
    asked: dict[str, Any] = {"memory": "200MB", "sequences": [16, 32], "data": str(text_folder), "check": True}
    made = api.fit(["gpt2/nano"], ["sgd"], **asked, show_check=shown.append)
    frame = made.frame()
    assert list(frame["sequence"]) == [16, 16, 32, 32] and list(frame["techniques"]) == ["fp32", "sgd"] * 2
    assert [item.label for item in shown] == ["fp32", "sgd"] * 2
    assert all(item["ran"][1] and item["refused"][1] for item in frame["checked"])
    assert made.text().count("trained, batch") == 4
    assert "gpt2/nano at 16 tokens, batch 8: a step of plain training takes about" in made.text()
    tokens = list(frame["tokens_per_s"] * frame["predicted_step_time_s"])
    assert tokens == pytest.approx([128.0, 128.0, 256.0, 256.0])
    assert "did NOT train" not in made.text() and "did NOT train" not in made._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no model is named: give one with --model"),
        (("--model", "gpt2/nano", "--card", "A100"), "card 'A100' is unknown: did you mean A100 40GB, A100 80GB?"),
        (("--model", "gpt2/nano", "--memory", "16"), "memory '16' is not a size"),
        (("--model", "gpt2/nano", "--technique", "adamm"), "adamm"),
        (("--model", "gpt2/nano", "--card", "L4", "--check"), "leave out --check"),
        (("--model", "gpt2/nano", "--gpus", "2"), "give --card too"),
        (("--model", "gpt2/nano", "--check"), "set a limit with --memory"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = inside("fit", *arguments)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("trainpace: ") and said in line


@pytest.mark.usefixtures("lent")
def test_a_model_that_cannot_be_built_is_one_line() -> None:
    done = inside("fit", "--model", "gpt2/none", "--card", "L4")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "gpt2/none" in done.stderr
