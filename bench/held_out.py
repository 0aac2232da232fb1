"""A workload in two parts: what is trained on, and the samples held out to see what a model has learnt."""

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
    """The workload without the samples that it now has as `held_out`. In text these are pieces of documents, for a
    classifier what it is scored on, in the user's own data set one sample in twenty. They do not depend on the seed.

    Raises ValueError if nothing can be held out.
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
    """Task: how many `samples` of a workload are held out, and how many bytes of text one of their tokens stands for
    (None if they are not text). Raises ValueError if nothing, or less than one batch, can be held out."""
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
    """The workload at `factor` times its learning rate, whether or not it brings its own optimizer."""
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
