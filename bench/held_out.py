"""A workload in two: what is trained on, and the samples that are held out to see what a model has learnt."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sized
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Subset

from bench import samples
from bench.corpus import HELD_OUT_EVERY, Corpus, Part
from bench.resolve import resolve
from bench.spec import Phase, WorkloadSpec
from bench.workload import Workload

Message = dict[str, Any]


def with_held_out(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    """The workload on what is left to train on, with what is `held_out`: of text pieces of documents, of a classifier
    what it is scored on, of a data set of the user's one sample in twenty, whatever the seed.

    Raises ValueError where nothing can be held out.
    """
    if spec.phase is Phase.FINETUNE:
        tuned = resolve(spec, corpus)
        if tuned.held_out is None:
            raise ValueError(f"{spec.name} has no held-out samples to score: give a model that is fine-tuned on text")
        return tuned
    trained = resolve(spec, corpus.of(Part.TRAINED))
    if trained.is_stream:
        raise ValueError(f"{spec.name} trains on a stream, so nothing can be held out: give a map-style data set")
    data = trained.data()
    if isinstance(data, samples.Samples):
        return dataclasses.replace(trained, held_out=resolve(spec, corpus.of(Part.HELD_OUT)).data)
    if trained.order is not None:
        raise ValueError(f"{spec.name} has its own sampler, which would draw held-out samples too: leave it out")
    drawn = torch.randperm(len(cast(Sized, data)), generator=torch.Generator().manual_seed(0)).tolist()
    count = max(1, len(drawn) // HELD_OUT_EVERY)
    kept: Any = Subset(data, sorted(drawn[count:]))
    held: Any = Subset(data, sorted(drawn[:count]))
    return dataclasses.replace(trained, data=lambda: kept, held_out=lambda: held)


def held_out_facts(workload: Message, corpus: Message) -> Message:
    """Task: how many `samples` are held out of a workload, and how many bytes of text a token of them stands for, None
    where they are no text. Raises ValueError if nothing can be held out, or less than one batch."""
    found = with_held_out(WorkloadSpec.from_json(workload), Corpus(**corpus))
    assert found.held_out is not None
    count = len(found.held_out())
    if count < found.batch:
        raise ValueError(
            f"{count} samples of {found.name} are held out, fewer than one batch of {found.batch}: give more data, or "
            "a smaller --batch"
        )
    return {"samples": count, "bytes_per_token": _bytes_per_token(found)}


def _bytes_per_token(workload: Workload) -> float | None:
    if workload.text is None or workload.phase is Phase.FINETUNE:
        return None
    held_out = workload.text.corpus.of(Part.HELD_OUT)
    return len(held_out.text()) / len(held_out.tokens(workload.text.vocabulary))


def at_rate(workload: Workload, factor: float) -> Workload:
    """The workload at so many times its learning rate, whoever makes its optimizer."""
    own = workload.optimizer
    return dataclasses.replace(
        workload,
        learning_rate=factor * workload.learning_rate,
        optimizer=own and functools.partial(_faster, own, factor),
    )


def _faster(
    make: Callable[[Iterable[nn.Parameter]], Optimizer], factor: float, parameters: Iterable[nn.Parameter]
) -> Optimizer:
    optimizer = make(parameters)
    for group in optimizer.param_groups:
        group["lr"] *= factor
    return optimizer
