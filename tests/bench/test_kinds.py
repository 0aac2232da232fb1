"""What a user's function returns is trained as the user's own script would train it, also under techniques."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.corpus import Corpus
from bench.dropout import set_dropout
from bench.resolve import resolve
from bench.setup import baseline
from bench.spec import Phase, WorkloadSpec, parse_composition
from bench.workload import Workload
from harness.preparation.probing import probe_workload
from harness.record import Record, Status
from harness.timing.step import accumulate
from harness.timing.trainer import Trainer
from tests import kinds
from tests.conftest import LEAST

Run = Callable[..., tuple[Any, list[Record]]]

FILE = "tests/kinds.py"


def made(corpus: Corpus, name: str, **shape: Any) -> Workload:
    return resolve(WorkloadSpec(model=f"{FILE}:{name}", **shape), corpus)


def measured(sweep: Run, name: str, *techniques: str, phase: Phase = Phase.PRETRAIN) -> dict[str, Record]:
    compositions = [parse_composition(item) for item in techniques]
    _, records = sweep(*compositions, models=(f"{FILE}:{name}",), shape={}, phase=phase, protocol=LEAST)
    return {record.techniques: record for record in records if not record.copy}


@pytest.mark.parametrize(
    ("name", "techniques"),
    [
        pytest.param("trainer", ("accumulate_2", "ddp_2", "workers_2"), marks=pytest.mark.long),
        pytest.param("accumulating_trainer", ("ddp_2", "fsdp2"), marks=pytest.mark.long),
        ("trainer_with_a_loss", ("checkpoint_activations",)),
        pytest.param("lightning_with_a_loader", ("accumulate_2", "ddp_2"), marks=pytest.mark.long),
        pytest.param("lightning_with_a_loader", ("compile",), marks=pytest.mark.long),
        ("lightning_with_a_data_module", ("accumulate_2",)),
        ("triple_of_torch", ("accumulate_2", "ddp_2")),
        pytest.param("triple_of_ours", ("workers_2",), marks=pytest.mark.long),
        ("collated", ("accumulate_2", "ddp_2", "workers_2")),
        pytest.param("masking_collator", ("accumulate_2", "ddp_2", "workers_2"), marks=pytest.mark.long),
        ("weighted_sampler", ("accumulate_2", "ddp_2")),
        ("own_batches", ("accumulate_2", "ddp_2")),
        ("stream", ("accumulate_2", "ddp_2", "prefetch_thread")),
        ("stream_in_a_loader", ("accumulate_2",)),
        ("own_optimizer", ("accumulate_2", "ddp_2", "zero_1", "optimizer_in_backward")),
        ("unused", ("ddp_2",)),
        ("sum_and_count", ("accumulate_4", "ddp_2", "accumulate_2+ddp_2")),
        pytest.param("nano_gpt", ("accumulate_2", "compile"), marks=pytest.mark.long),
        ("in_a_dict", ("accumulate_2",)),
    ],
)
def test_techniques_do_the_work_of_what_was_brought(sweep: Run, name: str, techniques: tuple[str, ...]) -> None:
    found = measured(sweep, name, *techniques)
    assert {label: (record.status, record.reason) for label, record in found.items()} == dict.fromkeys(
        ("fp32", *techniques), (Status.OK, None)
    )
    for record in found.values():
        assert record.certificate is not None and record.certificate.losses_unknown is None
        assert record.certificate.updates > 0


@pytest.mark.parametrize(
    ("name", "technique", "reason"),
    [
        ("own_optimizer", "adamw_fused", "this workload trains with SGD"),
        ("own_optimizer", "pure_fp16", "brings an optimizer of its own"),
        ("trainer", "adamw_fused", "already computes its AdamW"),
        ("stream", "workers_2", "would read the whole stream"),
        ("stream", "largest_batch", "an order of its own"),
        ("weighted_sampler", "batch_ramp", "an order of its own"),
        ("nano_gpt", "pad_lines", "brings ready-made samples"),
    ],
)
def test_what_cannot_be_told_of_it_is_unsupported(sweep: Run, name: str, technique: str, reason: str) -> None:
    record = measured(sweep, name, technique)[technique]
    assert record.status is Status.UNSUPPORTED and reason in str(record.reason)


def test_a_parameter_without_gradient_is_named(sweep: Run) -> None:
    record = measured(sweep, "unused_and_not_said", "ddp_2")["ddp_2"]
    assert record.status is Status.CRASHED and "find_unused_parameters" in str(record.reason)


def _trained(corpus: Corpus, name: str, steps: int) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    setup = baseline(made(corpus, name), torch.device("cpu"))
    set_dropout(setup.model, 0.0)
    trainer = Trainer(setup, seed=0)
    return setup.model, trainer.steps(steps)["losses"]


@pytest.mark.usefixtures("one_thread")
def test_a_trainer_takes_the_updates_that_it_takes_by_itself(corpus: Corpus) -> None:
    """transformers' own loop, on the same batches, gives the same weights: loss, accumulation, clipping, optimizer."""
    workload = made(corpus, "accumulating_trainer")
    assert (workload.batch, workload.accumulate, workload.learning_rate) == (8, 2, 0.1)
    torch.manual_seed(0)
    setup = baseline(workload, torch.device("cpu"))
    set_dropout(setup.model, 0.0)
    theirs = kinds.trainer(
        gradient_accumulation_steps=2,
        weight_decay=0.1,
        learning_rate=0.1,
        optim="sgd",
        max_steps=3,
        lr_scheduler_type="constant",
        save_strategy="no",
        disable_tqdm=True,
    )
    theirs.model.load_state_dict(setup.model.state_dict())
    set_dropout(theirs.model, 0.0)
    batches: list[Any] = []
    step = theirs.training_step

    def seen(model: nn.Module, inputs: Any, *rest: Any) -> Tensor:
        batches.append({key: value.clone() for key, value in inputs.items()})
        loss: Tensor = step(model, inputs, *rest)
        return loss

    theirs.training_step = seen
    theirs.train()
    optimizer = setup.optimizer([item for item in setup.model.parameters() if item.requires_grad])
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        longest = max(first["input_ids"].shape[1], second["input_ids"].shape[1])

        def widened(batch: Any, longest: int = longest) -> Any:
            fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
            return {
                name: nn.functional.pad(value, (0, longest - value.shape[1]), value=fill[name])
                for name, value in batch.items()
            }

        pair = [widened(first), widened(second)]
        accumulate(setup, {name: torch.cat([part[name] for part in pair]) for name in first})
        optimizer.step()
        optimizer.zero_grad()
    for own, other in zip(setup.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_a_lightning_module_takes_the_updates_that_it_takes_by_itself(corpus: Corpus) -> None:
    import lightning

    torch.manual_seed(0)
    workload = made(corpus, "lightning_with_a_loader")
    assert workload.batch == 16 and workload.learning_rate == 0.01
    setup = baseline(workload, torch.device("cpu"))
    theirs, loader = kinds.lightning_with_a_loader()
    theirs.load_state_dict(setup.model.state_dict())
    batches: list[Any] = []
    step = theirs.training_step

    def seen(batch: Any, batch_idx: int) -> Any:
        batches.append(batch)
        return step(batch, batch_idx)

    theirs.training_step = seen
    lightning.Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(theirs, loader)
    optimizer = setup.optimizer(list(setup.model.parameters()))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    for batch in batches:
        setup.loss(setup.model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    for own, other in zip(setup.model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_a_loader_gives_what_its_sampler_says(corpus: Corpus) -> None:
    workload = made(corpus, "weighted_sampler")
    assert workload.order is not None
    order = iter(workload.order(16, 0))
    assert all(index < 10 for _ in range(5) for index in next(order))
    batches = made(corpus, "own_batches").order
    assert batches is not None
    assert [len(indices) for indices, _ in zip(batches(16, 0), range(4), strict=False)] == [8, 16, 8, 16]


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("by_hand", {}, "optimizes by hand"),
        ("nonsense", {}, "it returned (Sequential, str): return a torch module, a Workload"),
        ("cannot_be_guessed", {}, "return Workload("),
        ("an_instance", {}, "give a function that makes a new one"),
        ("own_batches", {"batch": 4}, "batch 4 cannot be used"),
        ("collated", {"sequence": 64}, "sequence 64 does not apply"),
    ],
)
def test_what_cannot_be_used_is_told(corpus: Corpus, name: str, shape: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        made(corpus, name, **shape)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("knows_too_few_tokens", r"whose tokens are below 260 and 128 a sample \(see --sequence\): IndexError"),
        ("a_loss_for_each_token", r"gives a tensor of shape \(256,\) as loss: give a scalar"),
    ],
)
def test_what_fails_on_a_batch_is_told_before_anything_runs(corpus: Corpus, name: str, says: str) -> None:
    spec = WorkloadSpec(model=f"{FILE}:{name}")
    with pytest.raises(ValueError, match=says):
        probe_workload(dataclasses.asdict(spec), dataclasses.asdict(corpus))


def test_a_classifier_of_ones_own_is_fine_tuned_and_scored(sweep: Run) -> None:
    found = measured(sweep, "classifier", "accumulate_2", phase=Phase.FINETUNE)
    for record in found.values():
        assert record.status is Status.OK and record.certificate is not None
        assert record.certificate.accuracy is not None


@pytest.mark.parametrize("phase", [Phase.FINETUNE, Phase.INFER])
def test_files_of_ones_own_have_every_phase(sweep: Run, phase: Phase) -> None:
    found = measured(sweep, "triple_of_torch", "amp_bf16", phase=phase)
    assert {record.status for record in found.values()} == {Status.OK}
    assert all(record.certificate is None or record.certificate.accuracy is None for record in found.values())
