"""From Python: runs, comparisons and gates as plain data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import api
from bench.spec import Plan, Protocol, WorkloadSpec
from harness.ab import comparison
from harness.processes.fork_server import ForkServer
from harness.record import Status
from results.decision import Verdict
from results.pace import step_time_s
from tests import ROOT
from tests.conftest import lend
from tests.mutations import SHORT
from tests.reports import synthetic

PLAN = Plan(
    name="short",
    workloads=(WorkloadSpec(model="gpt2/nano", batch=8, sequence=32),),
    compositions=(("sgd_momentum",), ("tf32",)),
    repetitions=2,
    protocol=Protocol(warmup_s=0.2, rounds=4, rounds_s=0.1, turn_s=0.02),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> api.Run:
    with pytest.MonkeyPatch.context() as patch:
        lend(fork_server, patch)
        return api.run(PLAN, out=tmp_path_factory.mktemp("runs"))


def test_a_plan_of_ones_own_is_measured_and_rendered(made: api.Run) -> None:
    measured = {(item.techniques, item.repetition) for item in made.records if item.measurement.round_index}
    # Repetitions that are disturbed, perhaps by other tests, are measured again.
    assert measured >= {(name, repetition) for name in ("fp32", "sgd_momentum") for repetition in (0, 1)}
    assert made.folder.name.endswith("-short") and (made.folder / "report.html").is_file()
    assert made.plan == PLAN
    assert repr(made) == f"Run({str(made.folder)!r})"


def test_arms_are_a_frame_of_the_comparisons(made: api.Run) -> None:
    arms = made.arms().to_dict("records")
    assert [row["techniques"] for row in arms] == [item.techniques for item in made.comparisons]
    assert [row["step_time_s"] for row in arms if row["status"] == "ok"] == [
        item.step_time_s for item in made.comparisons if item.status is Status.OK
    ]
    assert [row["reason"] for row in arms if row["status"] == "unsupported"] == [
        "tf32 needs an Ampere or newer GPU; this run is on cpu"
    ]


def test_steps_are_a_frame_of_all_that_was_timed(made: api.Run) -> None:
    steps = made.steps()
    assert set(steps["phase"]) == {"first", "warm-up", "round"}
    timed = sum(
        len(item.measurement.round_step_times_s + item.measurement.warmup_step_times_s) for item in made.records
    )
    assert len(steps) == timed
    own = next(item for item in made.records if item.techniques == "fp32" and item.repetition == 0)
    mine = steps[(steps["techniques"] == "fp32") & (steps["repetition"] == 0) & (steps["copy"] == own.copy)]
    rounds = mine[mine["counted"]].groupby("round")["step_time_s"]
    if not own.disturbed:
        assert rounds.mean().median() == pytest.approx(step_time_s(own), rel=0.2)
        assert len(mine[mine["phase"] == "round"]) - rounds.size().sum() == own.lead_steps * len(rounds)


def test_a_finished_run_is_opened_and_compared_with_another(made: api.Run, tmp_path: Path) -> None:
    opened = api.Run(made.folder)
    assert api.compare(opened).equals(made.arms())
    kept = synthetic.keep(tmp_path)
    (first, *_) = api.compare(kept, kept).to_dict("records")
    assert (first["techniques"], first["speedup"]) == ("fp32", 1) and first["method"].startswith("Welch")
    with pytest.raises(ValueError, match="the runs differ in machine_id"):
        api.compare(made, kept)
    assert api.compare(made, kept, force=True).empty


def test_a_notebook_shows_the_answer_as_a_picture(tmp_path: Path) -> None:
    shown = api.Run(synthetic.keep(tmp_path))._repr_html_()
    assert shown.count('class="tile') == len(synthetic.TIMES) - 1 + len(synthetic.FAILED)
    assert "is fastest" in shown and str(tmp_path / "report.html") in shown
    assert ".trainpace .matrix" in shown and "--faster" in shown


@pytest.mark.long
def test_the_page_about_python_shows_what_runs(lent: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    first, *others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found: dict[str, object] = {}
    exec(first, found)
    made = found["made"]
    assert isinstance(made, api.Run) and {item.techniques for item in made.comparisons} == {
        "fp32",
        "adamw_fused",
        "checkpoint_activations",
    }
    for block in others:
        compile(block, "python.md", "exec")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"plan": "nonesuch"}, "nonesuch"),
        ({"techniques": ["nonesuch"]}, "nonesuch"),
        ({"models": ["gpt2/nonesuch"], "techniques": ["adam"]}, "gpt2/nonesuch"),
        ({"resume": "/nowhere"}, "no readable plan.json"),
        ({"resume": "/nowhere", "batch": 4}, "takes its plan from the run"),
    ],
)
def test_bad_input_is_named_before_anything_runs(
    asked: dict[str, object], words: str, lent: None, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        api.run(**asked, out=tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_plan_of_ones_own_is_not_changed_in_silence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plan 'short' is a Plan and is measured as it is"):
        api.run(PLAN, repetitions=5, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_records_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no records"):
        api.Run(tmp_path)


def test_a_gate_of_one_side_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match="base and head are the same"):
        api.gate(models=["gpt2/nano"], base="HEAD", head="HEAD", out=tmp_path)


@pytest.mark.long
@pytest.mark.usefixtures("kept_fork_servers")
def test_a_gate_comes_to_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "PROTOCOL", SHORT)
    made = api.gate(
        models=["gpt2/nano"],
        head_technique="checkpoint_activations",
        batch=4,
        sequence=32,
        budget_s=40.0,
        out=tmp_path,
        seed=1,
    )
    assert made.verdict in (Verdict.REGRESSION, Verdict.INVALID, Verdict.INCONCLUSIVE)
    assert (made.folder / "gate.json").is_file()
    assert made._repr_markdown_() == (made.folder / "gate.md").read_text(encoding="utf-8")


def test_the_room_says_how_it_is_used() -> None:
    """What the docstring of bench.api shows exists."""
    said = api.__doc__ or ""
    assert all(f"api.{name}(" in said for name in ("run", "compare", "gate"))
