"""`trainpace init` writes files that run at once, for each kind of script, with the parts of it that can be used."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli.app import app
from bench.cli.init import Kind, read
from harness.record import Record, Status
from tests.conftest import LEAST

LOOP = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()


class Net(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.layers = nn.Linear(64, 10)

    def forward(self, inputs):
        return self.layers(inputs)


def loader():
    made = DataLoader(TensorDataset(torch.randn(256, 64), torch.randint(0, 10, (256,))), batch_size=16)
    return made
"""

LIGHTNING = """
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(64, 10)

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Points(pl.LightningDataModule):
    def setup(self, stage):
        self.points = TensorDataset(torch.randn(256, 64), torch.randint(0, 10, (256,)))

    def train_dataloader(self):
        return DataLoader(self.points, batch_size=16)


if __name__ == "__main__":
    pl.Trainer().fit(Net(), Points())
"""

TRAINER = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        ids = torch.arange(32) + index
        return {"input_ids": ids, "labels": ids}


def build():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=32, n_layer=1, n_head=2, n_positions=64))
    trainer = Trainer(
        model=model, args=TrainingArguments("out", per_device_train_batch_size=4, report_to=[]), train_dataset=Tokens()
    )
    return trainer


def main():
    build().train()


if __name__ == "__main__":
    main()
"""

SCRIPTS = {
    "loop": LOOP,
    "loop that trains": f"{LOOP}\nfor step in range(10**9):\n    raise SystemExit\n",
    "lightning": LIGHTNING,
    "lightning that trains": LIGHTNING.replace('if __name__ == "__main__":\n    ', ""),
    "trainer": TRAINER,
    "trainer that trains": TRAINER.replace('if __name__ == "__main__":\n    ', ""),
}


@pytest.mark.parametrize(
    "name", [name if name in ("loop", "lightning") else pytest.param(name, marks=pytest.mark.long) for name in SCRIPTS]
)
def test_what_it_writes_runs_at_once(name: str, sweep: Callable[..., tuple[Any, list[Record]]], tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        (tmp_path / "train.py").write_text(SCRIPTS[name])
        done = CliRunner().invoke(app, ["init"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "workload.py").read_text()
    trains = name.endswith("that trains")
    # What can be imported and called without arguments is used; otherwise its place is marked.
    used = {"loop": "import Net, loader", "lightning": "import Net, Points", "trainer": "import build"}
    assert (used[name.split(maxsplit=1)[0]] in text) is not trains
    assert ("runs when it is imported, see its line" in text) is trains
    _, records = sweep(("accumulate_2",), models=(f"{tmp_path / 'workload.py'}:workload",), shape={}, protocol=LEAST)
    assert {record.status for record in records} == {Status.OK}, [record.reason for record in records]


def test_without_a_script_there_is_a_workload_to_fill_in(
    sweep: Callable[..., tuple[Any, list[Record]]], tmp_path: Path
) -> None:
    with contextlib.chdir(tmp_path):
        done = CliRunner().invoke(app, ["init", "--out", "mine.py"])
    assert done.exit_code == 0 and "runs as it is" in done.output
    _, records = sweep(("accumulate_2",), models=(f"{tmp_path / 'mine.py'}:workload",), shape={}, protocol=LEAST)
    assert {record.status for record in records} == {Status.OK}


def test_the_gate_finds_its_table_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LOOP)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    with contextlib.chdir(tmp_path):
        assert CliRunner().invoke(app, ["init"]).exit_code == 0
        settings = tomllib.loads((tmp_path / "pyproject.toml").read_text())
        assert settings["project"] == {"name": "mine"}
        assert settings["tool"]["trainpace"]["gate"]["models"] == ["workload.py:workload"]
        assert "trainpace gate" in (tmp_path / ".github/workflows/trainpace.yml").read_text()
        again = CliRunner().invoke(app, ["init"])
        assert again.exit_code == 2 and "already exists" in again.output
        forced = CliRunner().invoke(app, ["init", "--force"])
        assert forced.exit_code == 0 and forced.output.count("left unchanged") == 2


def test_a_script_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def (")
    with contextlib.chdir(tmp_path):
        for name, says in (("bad.py", "is not valid Python"), ("none.py", "does not exist")):
            done = CliRunner().invoke(app, ["init", name])
            assert done.exit_code == 2 and says in done.output
    assert not (tmp_path / "workload.py").exists()


def test_kinds_are_told_by_what_is_imported(tmp_path: Path) -> None:
    lines = {
        "import transformers\ntransformers.Trainer()": Kind.TRAINER,
        "from trl import SFTTrainer": Kind.TRAINER,
        "import lightning as L": Kind.LIGHTNING,
        "from transformers import AutoModel": Kind.LOOP,
        "import torch": Kind.LOOP,
    }
    for text, kind in lines.items():
        (tmp_path / "script.py").write_text(text)
        assert read(tmp_path / "script.py").kind is kind
