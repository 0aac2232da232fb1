"""What `--model` may name, and how bad names are refused."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

from bench import plugins
from bench.corpus import Corpus
from bench.resolve import resolve
from bench.spec import WorkloadSpec
from bench.workload import families

MLP = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn
from bench.workload import Workload

class Points:
    def __len__(self):
        return 64
    def __getitem__(self, index):
        x = torch.full((4,), float(index))
        return x, x.sum()

def regression():
    return Workload(
        model=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)),
        data=Points,
        loss=lambda model, batch: ((model(batch[0]).squeeze(-1) - batch[1]) ** 2).mean(),
        batch=16,
    )

@dataclass
class Settings:
    width: int = 8

def number():
    return 3

def broken():
    raise KeyError("lost")
"""

SCRIPT = """
import argparse
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=8)
args = parser.parse_args()

def make():
    return nn.Linear(args.width, 1)
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MLP)
    return file


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("gpt2/small", 124_439_808),
        ("gpt2/medium", 354_823_168),
        ("bert/base", 109_514_298),
        ("bert/large", 335_174_458),
    ],
)
def test_published_sizes_have_the_published_parameters(corpus: Corpus, model: str, parameters: int) -> None:
    with torch.device("meta"):
        built = resolve(WorkloadSpec(model=model), corpus).model()
    assert sum(item.numel() for item in built.parameters()) == parameters


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_every_size_builds(corpus: Corpus, family: str) -> None:
    sizes = families()[family].sizes
    with torch.device("meta"):
        counts = [
            sum(item.numel() for item in resolve(WorkloadSpec(model=f"{family}/{size}"), corpus).model().parameters())
            for size in sizes
        ]
    assert counts == sorted(counts)


@pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])
def test_families_give_a_loss_near_chance(corpus: Corpus, model: str) -> None:
    workload = resolve(WorkloadSpec(model=model, sequence=32), corpus)
    torch.manual_seed(0)
    samples = workload.data()
    loss = workload.loss(workload.model(), default_collate([samples[index] for index in range(4)]))
    assert abs(loss.item() - torch.tensor(260.0).log().item()) < 0.3


def test_user_workload_is_taken_as_it_is(corpus: Corpus, user_file: Path) -> None:
    workload = resolve(WorkloadSpec(model=f"{user_file}:regression", batch=8), corpus)
    assert (workload.batch, workload.tokens_per_sample) == (8, None)
    samples = workload.data()
    assert workload.loss(workload.model(), default_collate([samples[0], samples[1]])).requires_grad


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gpt2/huge", "gpt2/huge.* is unknown: give one of .*gpt2/{nano,tiny"),
        ("llama/7b", "is unknown"),
        ("{file}:nothing", "has no function 'nothing'"),
        ("{file}", "has no function ''"),
        ("/no/such.py:f", "does not exist"),
        ("{file}:number", "returned int: return a torch module, a Workload"),
        ("{file}:broken", "failed to build: KeyError"),
        ("{folder}", "no usable config.json"),
    ],
)
def test_bad_models_are_refused(corpus: Corpus, user_file: Path, model: str, message: str) -> None:
    named = model.format(file=user_file, folder=user_file.parent) if "{f" in model else model
    with pytest.raises(ValueError, match=message):
        resolve(WorkloadSpec(model=named), corpus)


def test_a_script_that_reads_its_arguments_at_the_top_has_its_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["trainpace", "run", "--model", "train.py:make"])
    file = tmp_path / "train.py"
    file.write_text(SCRIPT)
    assert plugins.load_file(file, kind="model").make().in_features == 8
    assert sys.argv[0] == "trainpace"
    demanding = tmp_path / "demanding.py"
    demanding.write_text(SCRIPT.replace("default=8", "required=True"))
    with pytest.raises(ValueError, match="ended the program when it was imported"):
        plugins.load_file(demanding, kind="model")


def test_sequence_beyond_the_positions_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="sequence 2000 is longer than the 1024 positions"):
        resolve(WorkloadSpec(model="gpt2/nano", sequence=2000), corpus)


def test_local_hugging_face_folder(corpus: Corpus, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=64))
    model.save_pretrained(tmp_path)
    workload = resolve(WorkloadSpec(model=str(tmp_path), sequence=32), corpus)
    loaded = workload.model()
    assert torch.equal(loaded.get_parameter("transformer.wte.weight"), model.get_parameter("transformer.wte.weight"))
    with torch.device("meta"):
        assert workload.model().get_parameter("transformer.wte.weight").is_meta
    with pytest.raises(ValueError, match="sequence 65 is longer than the 64 positions"):
        resolve(WorkloadSpec(model=str(tmp_path), sequence=65), corpus)
