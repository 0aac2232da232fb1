"""Fine-tuning from one of the suite's own checkpoints, and inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tests.planted  # noqa: F401  # Registers what it plants.
from bench import checkpoints
from bench.classification import split
from bench.corpus import BYTES, open_corpus
from bench.resolve import resolve
from bench.samples import TextSource, causal
from bench.setup import baseline
from bench.spec import Phase, WorkloadSpec
from harness.evidence.score import SCORED
from harness.record import Record, Status

Sweep = Callable[..., tuple[object, list[Record]]]


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sections that are easy to distinguish."""
    folder = tmp_path_factory.mktemp("sections")
    for name, word in (("digits", "0123456789"), ("letters", "abcdefghij")):
        (folder / name).mkdir()
        for part in range(4):
            (folder / name / f"{part}.txt").write_text((word * 500)[part:])
    return folder


def by_label(records: list[Record], label: str) -> Record:
    return next(item for item in records if item.techniques == label)


def test_labels_are_the_sections_and_held_out_pieces_are_not_trained_on(sections: Path) -> None:
    text = TextSource(corpus=open_corpus(str(sections)), vocabulary=BYTES, sequence=32, objective=causal)
    made = split(text)
    assert sorted(made.labels) == ["digits", "letters"]
    total = len(made.training) + len(made.held_out)
    assert len(made.held_out) == total // 10
    first = made.training[0]
    is_digits = bytes(first["input_ids"].astype(np.uint8)).isdigit()
    assert made.labels[int(first["labels"])] == ("digits" if is_digits else "letters")


def test_a_corpus_of_one_section_is_refused(tmp_path: Path) -> None:
    (tmp_path / "only.txt").write_text("text " * 1000)
    text = TextSource(corpus=open_corpus(str(tmp_path)), vocabulary=BYTES, sequence=32, objective=causal)
    with pytest.raises(ValueError, match="fine-tuning tells sections apart"):
        split(text)


@pytest.mark.parametrize("model", [pytest.param("gpt2/nano", marks=pytest.mark.long), "bert/nano"])
def test_fine_tuning_starts_from_the_checkpoint_and_learns(sweep: Sweep, sections: Path, model: str) -> None:
    _, records = sweep(("adamw_fused",), models=(model,), phase=Phase.FINETUNE, corpus=sections)
    plain, fused = by_label(records, "fp32"), by_label(records, "adamw_fused")
    assert (plain.status, fused.status) == (Status.OK, Status.OK), (plain.reason, fused.reason)
    assert plain.certificate is not None and plain.certificate.accuracy is not None
    assert plain.certificate.accuracy > 0.75
    assert plain.certificate.scored_samples is not None and 0 < plain.certificate.scored_samples <= SCORED
    workload = resolve(
        WorkloadSpec(model=model, batch=8, sequence=32, phase=Phase.FINETUNE), open_corpus(str(sections))
    )
    tuned = baseline(workload, torch.device("cpu")).model.state_dict()
    from safetensors.torch import load_file

    kept = load_file(str(checkpoints.path(replace(workload, phase=Phase.PRETRAIN))))
    shared = [name for name in kept if name in tuned]
    assert {"transformer.wte.weight", "bert.embeddings.word_embeddings.weight"} & set(shared)
    assert len(shared) > 10
    assert all(torch.equal(kept[name], tuned[name]) for name in shared)


@pytest.mark.long
@pytest.mark.parametrize("model", ["roberta/nano", "t5/nano", "moe/nano"])
def test_every_family_can_be_fine_tuned(sweep: Sweep, sections: Path, model: str) -> None:
    _, records = sweep(models=(model,), phase=Phase.FINETUNE, corpus=sections)
    (plain,) = records
    assert plain.status is Status.OK, plain.reason
    assert plain.certificate is not None and plain.certificate.accuracy is not None


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_folder_is_fine_tuned_from_its_own_weights(sweep: Sweep, sections: Path, tmp_path: Path, kind: str) -> None:
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

    made: Any = (
        GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=64))
        if kind == "gpt2"
        else BertForMaskedLM(
            BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
        )
    )
    made.save_pretrained(tmp_path / "model")
    folder = str(tmp_path / "model")
    workload = resolve(
        WorkloadSpec(model=folder, batch=8, sequence=32, phase=Phase.FINETUNE), open_corpus(str(sections))
    )
    own, tuned = made.state_dict(), workload.model().state_dict()
    name = "transformer.wte.weight" if kind == "gpt2" else "bert.embeddings.word_embeddings.weight"
    assert torch.equal(own[name], tuned[name])
    _, records = sweep(models=(folder,), phase=Phase.FINETUNE, corpus=sections)
    assert records[0].status is Status.OK, records[0].reason
    assert records[0].certificate is not None and records[0].certificate.accuracy is not None


def test_an_arm_whose_checkpoint_cannot_be_made_is_left_out_and_the_others_run(sweep: Sweep) -> None:
    _, records = sweep(("planted_no_teacher",), ("adamw_fused",))
    untaught = by_label(records, "planted_no_teacher")
    assert untaught.status is Status.CRASHED
    assert untaught.reason == "RuntimeError: the teacher is ill"
    assert by_label(records, "adamw_fused").status is Status.OK


def test_a_forward_pass_is_a_third_of_an_updates_work(sweep: Sweep) -> None:
    sweep(phase=Phase.PRETRAIN)
    _, records = sweep(phase=Phase.INFER)
    flops = {record.workload: record.step_flops for record in records}
    trained, inferred = flops["gpt2/nano"], flops["gpt2/nano infer"]
    assert trained is not None and inferred is not None
    assert 2.5 < trained / inferred <= 3


def test_inference_makes_no_update_and_takes_no_optimizer(sweep: Sweep) -> None:
    _, records = sweep(("prune_heads_50",), ("adam",), ("serve_int8",), phase=Phase.INFER)
    plain, pruned, adam = (by_label(records, label) for label in ("fp32", "prune_heads_50", "adam"))
    assert plain.certificate is not None and pruned.certificate is not None
    assert (plain.certificate.updates, plain.certificate.moved_tensors) == (0, 0)
    assert plain.workload == "gpt2/nano infer"
    assert pruned.status is Status.OK and pruned.certificate.parameters < plain.certificate.parameters
    assert by_label(records, "serve_int8").status is Status.OK
    assert adam.status is Status.UNSUPPORTED
    assert adam.reason == "adam is for the phases finetune, pretrain; this is infer"
