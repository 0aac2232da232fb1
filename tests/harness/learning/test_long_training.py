"""A long training: it ends on time, and resumes from a checkpoint as if nothing had happened."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.host import Host
from bench.spec import Plan, WorkloadSpec
from harness.learning import long_training
from harness.learning.course import Stand
from harness.learning.long_training import Asked, Lasted, LongTraining
from harness.learning.training import divided
from harness.preparation.prepared import Entry, prepare
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer

HERE = Host(device="cpu")
UPDATES = 90


@pytest.fixture(scope="module")
def entry(fork_server: ForkServer, text_folder: Path) -> Entry:
    spec = WorkloadSpec(model="gpt2/nano", batch=4, sequence=32, corpus=str(text_folder))
    plan = Plan(name="day", workloads=(spec,), compositions=())
    return divided(prepare(plan, fork_server).entries[0], fork_server)[0]


Train = Callable[..., Lasted]


@pytest.fixture
def train(entry: Entry, fork_server: ForkServer, tmp_path: Path) -> Train:
    def run(name: str, show: Callable[[Stand], object] = lambda _: None, **asked: object) -> Lasted:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        wanted = Asked(techniques=(), seed=0, rate=10.0, updates=UPDATES)
        training = LongTraining(
            dataclasses.replace(wanted, **asked),  # type: ignore[arg-type]
            host=HERE,
            entry=entry,
            fork_server=fork_server,
            folder=folder,
            show=show,
        )
        return training.run("import os")

    return run


class Killed(Exception):
    """Ends the training at an arbitrary moment."""


def killed_after(updates: int) -> Callable[[Stand], None]:
    def show(stand: Stand) -> None:
        if stand.updates > updates:
            raise Killed

    return show


def losses(lasted: Lasted) -> list[tuple[int, float, float | None]]:
    return [(point.updates, point.held_out_loss, point.train_loss) for point in lasted.stand.points]


@pytest.mark.parametrize(
    "techniques",
    [(), ("adamw_fused",), *(pytest.param((name,), marks=pytest.mark.long) for name in ("amp_fp16", "muon"))],
    ids="+".join,
)
def test_it_goes_on_as_if_nothing_had_happened(
    train: Train, tmp_path: Path, techniques: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, data order and optimizer state are all restored; the checkpoint is as old as possible."""
    monkeypatch.setattr(long_training, "POINTS", 9)
    monkeypatch.setattr(long_training, "CHECKPOINT_S", 0.0)
    whole = train("whole", techniques=techniques)
    for after in (25, 60):
        with pytest.raises(Killed):
            train("killed", killed_after(after), techniques=techniques)
        (kept,) = (tmp_path / "killed").glob("checkpoint-*.pt")
        assert 0 < int(kept.stem.partition("-")[2]) < UPDATES
    resumed = train("killed", techniques=techniques)
    assert losses(resumed) == losses(whole)
    assert whole.stand.updates == UPDATES and whole.ended == "it has taken all its updates"
    assert whole.stand.points[-1].held_out_loss < whole.stand.points[0].held_out_loss - 0.5


def test_the_model_is_one_that_transformers_loads(train: Train, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lasted = train("made", updates=30)
    folder = tmp_path / "made" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin"))
    text = "def first(words):\n    return words[0]  # é\n"
    ids = tokenizer(text)["input_ids"]
    assert ids == list(text.encode()) and tokenizer.decode(ids) == text
    with torch.inference_mode():
        tokens = torch.tensor([ids])
        assert float(model(input_ids=tokens, labels=tokens).loss) < 0.9 * math.log(256)
        written = model.generate(tokens, max_new_tokens=8, do_sample=False)
    assert written.shape == (1, len(ids) + 8)
    assert len(lasted.texts) == 3 and all(item.startswith("import os") for item in lasted.texts)


@pytest.mark.long
def test_it_ends_on_time(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the first estimate: the schedule is recomputed for the time there is, and ends at a rate of zero."""
    monkeypatch.setattr(long_training, "POINTS", 12)
    for updates in (40, 100_000):
        stand = train(f"time-{updates}", updates=updates, seconds=6.0).stand
        assert stand.course.updates != updates
        assert stand.course.rate(stand.updates - 1) < 0.2
        assert stand.points[-1].updates == stand.updates


def test_it_ends_when_nothing_more_is_learnt(train: Train) -> None:
    lasted = train("patient", rate=1e-9, updates=600, patience=3)
    assert lasted.ended == "the held-out loss has not fallen for 3 evaluations" and lasted.stand.updates < 600


def test_what_diverges_says_so(train: Train) -> None:
    with pytest.raises(ArmFailed, match=r"the loss is not finite between update|held-out loss is nan"):
        train("diverging", rate=1e9, techniques=("sgd",), updates=600)
