"""What a workload takes from a DataLoader of the user's."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, default_collate

from bench.seeds import own_draws
from bench.workload import Workload


class Made:
    """What a function makes. The first object can be looked at, and is returned by the first call; later calls make
    their own."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._first = make, make()

    def look(self) -> Any:
        """The first object; only before the first call."""
        return self._first

    def __call__(self) -> Any:
        first, self._first = self._first, None
        return self._make() if first is None else first


def with_loader(workload: Workload, batch: int | None = None) -> Workload:
    """The workload with a dataset as its `data`, even if that was a DataLoader, and with the batch that is asked for.

    Raises ValueError if a loader does not tell its batch size, or does not allow another one.
    """
    made = Made(workload.data)
    loader = made.look()
    if not isinstance(loader, DataLoader):
        is_stream = isinstance(loader, IterableDataset)
        return replace(workload, data=made, batch=batch or workload.batch, is_stream=is_stream)
    is_stream = isinstance(loader.dataset, IterableDataset)
    own = not is_stream and loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler
    if own and batch is not None:
        raise ValueError(f"batch {batch} cannot be used: the DataLoader makes batches with its own batch_sampler")
    if loader.batch_size is None and loader.batch_sampler is None:
        raise ValueError(
            "the DataLoader has batch_size=None, so its data set makes whole batches, which cannot be shared out: "
            "give a data set of samples, and a batch_size"
        )
    size = batch or workload.batch or loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    if size is None:
        raise ValueError("the DataLoader's batch_sampler has no batch_size: give the Workload a batch")
    return replace(
        workload,
        data=lambda: made().dataset,
        batch=size,
        collate=_collate(loader.collate_fn) if workload.collate is default_collate else workload.collate,
        order=None if is_stream else workload.order or _order(loader, own),
        is_stream=is_stream,
    )


def _collate(own: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    return own if own is default_collate else functools.partial(_plain, own)


def _plain(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """A batch as torch's tools know it: tokenizers make a mapping that is not a dict."""
    made = collate(samples)
    return dict(made) if isinstance(made, Mapping) else made


def _order(loader: DataLoader[Any], own_batches: bool) -> Callable[[int, int], Iterable[list[int]]] | None:
    """Endless index lists of global batches from the loader's own samplers, drawn from a seed. None if the loader
    shuffles in the usual way."""
    if own_batches:
        return lambda batch, seed: _epochs(loader.batch_sampler, loader, seed)
    sampler = loader.sampler
    if isinstance(sampler, RandomSampler) and not sampler.replacement:
        return None
    if getattr(sampler, "num_replicas", 1) > 1:
        raise ValueError(
            f"the DataLoader's {type(sampler).__name__} already splits the data over ranks: leave it out, trainpace "
            "gives each rank its own share"
        )
    return lambda batch, seed: _cut(_epochs(sampler, loader, seed), batch)


def _epochs(sampler: Any, loader: DataLoader[Any], seed: int) -> Iterator[Any]:
    """What the sampler yields, epoch after epoch, each drawn from a seed of its own."""
    for epoch in itertools.count():
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        generator = getattr(sampler, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed + epoch)
        # Some samplers never end.
        most = len(sampler) if hasattr(sampler, "__len__") else len(loader.dataset)  # type: ignore[arg-type]
        with own_draws(seed + epoch):
            found = list(itertools.islice(sampler, most))
        if not found:
            raise ValueError(f"the DataLoader's {type(sampler).__name__} gives nothing in epoch {epoch}")
        yield from found


def _cut(indices: Iterator[int], batch: int) -> Iterator[list[int]]:
    while True:
        yield list(itertools.islice(indices, batch))
