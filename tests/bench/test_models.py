"""Every model family trains, has its FLOP counted, is reproducible, and has the published number of parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.corpus import Corpus
from bench.dropout import set_dropout
from bench.resolve import resolve
from bench.setup import baseline
from bench.spec import Phase, WorkloadSpec
from bench.workload import Size, Workload, families, parameter_count
from harness.preparation.probing import probe_workload
from harness.record import Record, Status
from harness.timing.trainer import Trainer
from tests.conftest import LEAST

NAMES = sorted(name for name, family in families().items() if family.samples is None)
"""The families that read text."""
OTHERS = sorted(set(families()) - set(NAMES))


def nano(corpus: Corpus, name: str) -> Workload:
    return resolve(WorkloadSpec(model=f"{name}/nano"), corpus)


def trainer(workload: Workload) -> Trainer:
    torch.manual_seed(0)
    return Trainer(baseline(workload, torch.device("cpu")), seed=0)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NAMES)
def test_nano_learns_and_repeats_itself(corpus: Corpus, name: str) -> None:
    workload = nano(corpus, name)
    answer = trainer(workload).steps(10)
    assert answer["losses"][-1] < answer["losses"][0]
    assert answer["losses"] == trainer(workload).steps(10)["losses"]
    assert answer["samples"] == [8] * 10
    assert answer["tokens"] == [8 * 128] * 10


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", OTHERS)
def test_what_reads_no_text_learns_and_repeats_itself(corpus: Corpus, name: str) -> None:
    workload = dataclasses.replace(nano(corpus, name), learning_rate=1e-3)
    answer = trainer(workload).steps(30)
    assert sum(answer["losses"][-3:]) < sum(answer["losses"][:3])
    assert answer["losses"] == trainer(workload).steps(30)["losses"]
    assert (answer["samples"], answer["tokens"]) == ([8] * 30, [])


@pytest.mark.parametrize("name", OTHERS)
def test_work_of_what_reads_no_text_is_counted(corpus: Corpus, name: str) -> None:
    counted = probe_workload(dataclasses.asdict(WorkloadSpec(model=f"{name}/nano")), dataclasses.asdict(corpus))
    # Each parameter is used at least once per sample: once forward and twice backward.
    assert counted["step_flops"] > 6 * counted["parameters"] * 8
    assert counted["sequence"] is None


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"sequence": 64}, "--sequence 64 does not apply"),
        ({"corpus": "text"}, "--data text does not apply"),
        ({"phase": Phase.FINETUNE}, "cannot be fine-tuned on text"),
    ],
)
def test_what_reads_no_text_has_none_of_its_options(corpus: Corpus, shape: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        resolve(WorkloadSpec(model="vit/nano", **shape), corpus)


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_techniques_run_on_what_reads_no_text(sweep: Callable[..., tuple[Any, list[Record]]], name: str) -> None:
    exact = ("accumulate_2", "adamw_fused", "checkpoint_activations", "ddp_2", "workers_2")
    chosen = (*exact, "amp_bf16", "pure_bf16", "fewer_layers", "narrower", "sgd_momentum", "pad_lines", "distill")
    _, records = sweep(*((item,) for item in chosen), models=(f"{name}/nano",), shape={}, corpus=None, protocol=LEAST)
    found = {record.techniques: record for record in records}
    for label in chosen:
        record = found[label]
        if record.status is Status.UNSUPPORTED:
            assert label not in ("adamw_fused", "accumulate_2", "amp_bf16", "sgd_momentum") and record.reason
        else:
            assert record.status is Status.OK, (label, record.reason)
    for label in ("pad_lines", "distill"):
        assert found[label].status is Status.UNSUPPORTED


@pytest.mark.parametrize("name", NAMES)
def test_work_of_an_update_is_counted(corpus: Corpus, name: str) -> None:
    counted = probe_workload(
        dataclasses.asdict(WorkloadSpec(model=f"{name}/nano")), {"path": corpus.path, "sha256": corpus.sha256}
    )
    dense = 6 * counted["parameters"] * 8 * 128
    # Embeddings and idle experts compute no products; attention and shared layers compute without own parameters.
    assert 0.5 < counted["step_flops"] / dense < 1.5


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NAMES)
def test_silenced_dropout_leaves_nothing_to_chance(corpus: Corpus, name: str) -> None:
    made = trainer(nano(corpus, name)).setup
    set_dropout(made.model, 0.0)
    losses = []
    for seed in (1, 2):
        batch = torch.utils.data.default_collate([made.workload.data()[index] for index in range(8)])
        torch.manual_seed(seed)
        losses.append(float(made.loss(made.model, batch).detach()))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("model", "published"),
    [
        # ALBERT's 12 million include 0.6 million for the sentence-order head, which is not trained here.
        ("albert/base", 12e6 - 0.6e6),
        ("bert/base", 110e6),
        ("distilbert/base", 66e6),
        ("gpt2/small", 124e6),
        ("llama/1b", 1.23e9),
        ("llama/8b", 8.03e9),
        ("moe/8x7b", 46.7e9),
        ("roberta/base", 125e6),
        ("resnet/18", 11.7e6),
        ("t5/small", 60e6),
        ("vit/base", 86.6e6),
        ("vit/small", 22.1e6),
        # As in the published checkpoints; the paper counts 39 and 244 million.
        ("whisper/tiny", 37.8e6),
        ("whisper/small", 241.7e6),
    ],
)
def test_parameters_are_the_published_ones(model: str, published: float) -> None:
    name, size = model.split("/")
    family = families()[name]
    assert parameter_count(family, family.sizes[size]) == pytest.approx(published, rel=0.02)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NAMES)
def test_classifier_takes_over_the_base_and_tells_classes(name: str) -> None:
    family = families()[name]
    size = family.sizes["nano"]
    assert isinstance(size, Size) and family.classifier is not None
    model, pretrained = family.classifier(size, 3), family.model(size)
    found = model.base_model.load_state_dict(pretrained.base_model.state_dict(), strict=False)  # type: ignore[union-attr]
    # A language model may lack only the pooler, which makes one vector of a sequence.
    assert all("pooler" in missing for missing in found.missing_keys)
    ids = torch.full((2, 16), size.vocabulary.pad)
    ids[0], ids[1, :5] = torch.arange(16), torch.tensor([7, size.vocabulary.end, 7, 7, 7])
    output = model(input_ids=ids, attention_mask=(ids != size.vocabulary.pad).long(), labels=torch.tensor([0, 2]))
    assert output.logits.shape == (2, 3)
    output.loss.backward()
    trained = pretrained.base_model.state_dict().keys() & dict(model.base_model.named_parameters()).keys()  # type: ignore[union-attr]
    assert all(model.base_model.get_parameter(item).grad is not None for item in trained)  # type: ignore[union-attr]
