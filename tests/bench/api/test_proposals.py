"""A change is judged by both sides' trainings, and entered in the ledger."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.api import proposals
from bench.api.gates import Asked
from bench.cli.app import app
from bench.spec import WorkloadSpec
from harness.ab import comparison
from harness.heats import conformance
from results import folders
from results.online import Ledger
from results.proposal import Proposal, Verdict
from tests import ROOT

PLANTED = ROOT / "tests" / "planted.py"


@pytest.fixture
def judged(
    text_folder: Path,
    tmp_path: Path,
    undisturbed: None,
    kept_fork_servers: None,
    monkeypatch: pytest.MonkeyPatch,
) -> object:
    brief = dataclasses.replace(conformance.PROTOCOL, rounds=4, rounds_min=3, certify_steps=3)
    monkeypatch.setattr(comparison, "PROTOCOL", brief)

    def judge(head: str) -> tuple[Path, Proposal]:
        asked = Asked(
            models=("llama/nano",),
            shape=WorkloadSpec(model="", batch=4, sequence=32, corpus=str(text_folder)),
            techniques=((), (head,)),
            device="cpu",
            plugins=(PLANTED,),
        )
        return proposals.judge(
            asked, minutes=10, seeds=3, repetitions=2, updates=60, ledger=tmp_path / "ledger.json", out=tmp_path
        )

    return judge


@pytest.mark.long
def test_a_change_is_judged_by_what_it_teaches_and_entered(judged: object, tmp_path: Path) -> None:
    assert callable(judged)
    folder, slow = judged("planted_every_third")
    assert slow.verdict in (Verdict.DISCARD, Verdict.UNKNOWN) and not slow.learns_alike
    assert slow.p is not None and slow.p > 0.05 and slow.seeds == 3 and slow.repetitions == 2
    assert slow.updates_ratio.value is not None and slow.updates_ratio.value > 1.3
    assert slow.base_loss is not None and slow.head_loss is not None and slow.base_loss < slow.head_loss
    kept = json.loads((folder / "judge.json").read_text())
    assert kept["verdict"] == slow.verdict and kept["exit_code"] == slow.exit_code
    assert all(folders.has_records(folder / side) for side in ("base", "head"))
    assert len(list((folder / "head" / "trainings").glob("part-*.parquet"))) == 3
    ledger = Ledger.read(tmp_path / "ledger.json")
    assert [entry.kept for entry in ledger.entries] == [False] and ledger.next_seed == 3
    _, null = judged("schedule_constant")
    assert null.learns_alike and null.seeds == 0 and null.verdict is not Verdict.KEEP
    assert null.judged_before == 1 and null.level < slow.level and null.first_seed == 3
    _, cheat = judged("planted_held_out")
    assert cheat.verdict is Verdict.INVALID and "held out" in cheat.reasons[0]
    # A judgement that decides nothing is not entered.
    assert len(Ledger.read(tmp_path / "ledger.json").entries) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no model is named"),
        (["--model", "gpt2/nano", "--head-technique", "muno"], "did you mean muon"),
        (["--model", "gpt2/nano", "--phase", "infer"], "learns nothing"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["judge", *words])
    assert done.exit_code == 2
    assert told in done.output and done.output.count("\n") == 1
