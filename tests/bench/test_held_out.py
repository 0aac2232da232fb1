"""Held-out data is never trained on, and is the same for all arms."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import torch

from bench.corpus import BYTES, HELD_OUT_EVERY, Part, bpe, open_corpus
from bench.held_out import at_rate, held_out_facts, with_held_out
from bench.resolve import resolve
from bench.spec import WorkloadSpec

SPEC = WorkloadSpec(model="gpt2/nano")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(50):
        lines = (f"{number} times {factor} is {number * factor}\n" for factor in range(1, 400))
        (folder / f"{number:02}.txt").write_text("".join(lines))
    return folder


def test_pieces_are_of_one_part_and_together_they_are_all(text: Path) -> None:
    corpus = open_corpus(str(text))
    trained, held_out = (list(corpus.of(part).documents()) for part in (Part.TRAINED, Part.HELD_OUT))
    whole = b"".join(document.text for document in corpus.documents())
    assert sum(len(document.text) for document in (*trained, *held_out)) == len(whole)
    assert not {document.text for document in trained} & {document.text for document in held_out}
    share = sum(len(document.text) for document in held_out) / len(whole)
    assert 0.5 / HELD_OUT_EVERY < share < 2 / HELD_OUT_EVERY
    assert all(document.text.endswith(b"\n") for document in (*trained, *held_out))


def test_what_is_there_twice_is_in_one_part(text: Path) -> None:
    for number in range(50):
        (text / f"again-{number:02}.txt").write_bytes((text / f"{number:02}.txt").read_bytes())
    corpus = open_corpus(str(text))
    trained, held_out = ({item.text for item in corpus.of(part).documents()} for part in Part)
    assert held_out and not trained & held_out


def test_a_tokenizer_knows_nothing_of_what_is_held_out(text: Path) -> None:
    corpus = open_corpus(str(text))
    known = {part: corpus.of(part).encoder(bpe(300)) for part in Part}
    sample = b"7 times 6 is 42\n"
    assert known[Part.TRAINED](sample).tolist() == known[Part.HELD_OUT](sample).tolist()
    whole = corpus.of(Part.TRAINED).tokens(BYTES)
    assert len(whole) < len(corpus.tokens(BYTES))


def test_a_data_set_of_ones_own_is_divided(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import torch\nfrom bench.workload import Workload\n"
        "def make():\n"
        "    data = torch.utils.data.TensorDataset(torch.arange(200.0)[:, None])\n"
        "    return Workload(model=lambda: torch.nn.Linear(1, 1), data=lambda: data, batch=4,\n"
        "                    loss=lambda model, batch: model(batch[0]).square().mean())\n"
    )
    found = with_held_out(WorkloadSpec(model=f"{file}:make"), open_corpus(None))
    assert found.held_out is not None
    kept = {float(found.data()[index][0]) for index in range(len(found.data()))}
    held = {float(found.held_out()[index][0]) for index in range(len(found.held_out()))}
    assert kept | held == set(map(float, range(200))) and not kept & held and len(held) == 200 // HELD_OUT_EVERY


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a line of text\n" * 400, "the text repeats itself"),
        ("".join(f"line {number}\n" for number in range(200)), "fewer than one sequence"),
        ("".join(f"line {number}\n" for number in range(1000)), "fewer than one batch of 8"),
    ],
)
def test_too_little_is_told_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text(text)
    corpus = open_corpus(str(tmp_path / "few.txt"))
    with pytest.raises(ValueError, match=told):
        held_out_facts(dataclasses.asdict(SPEC), corpus.as_message())


def test_a_rate_reaches_any_optimizer() -> None:
    plain = resolve(SPEC, open_corpus(None))
    assert at_rate(plain, 3.0).learning_rate == pytest.approx(3 * plain.learning_rate)
    own = dataclasses.replace(plain, optimizer=functools.partial(torch.optim.SGD, lr=0.5))
    made = at_rate(own, 0.1).optimizer
    assert made is not None
    assert made([torch.nn.Parameter(torch.ones(1))]).param_groups[0]["lr"] == pytest.approx(0.05)
