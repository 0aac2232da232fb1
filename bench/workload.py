"""A model, its data and its loss at a fixed shape; and the families that models come from."""

from __future__ import annotations

import functools
import importlib
import itertools
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves
from torch.utils.data import IterableDataset, default_collate

import bench.models
from bench import plugins
from bench.corpus import Vocabulary
from bench.samples import IGNORED, Objective, TextSource
from bench.spec import Phase

Batch = Any
"""What the DataLoader collates: a tensor, or tuples and dicts of tensors whose first dimension is the sample."""


class Samples(Protocol):
    """A map-style dataset: `len()` and indexing, each item one sample."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


Data = Any
"""A map-style dataset (see `Samples`), a torch IterableDataset or a torch DataLoader."""


def output_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The `.loss` that a Hugging Face style model returns for `input_ids, labels`: a scalar, mean over targets. Other
    models return it in a dict or a tuple."""
    return scalar_of(model(**batch))


def scalar_of(found: Any) -> Tensor:
    """The loss in what a model has returned: itself, its `.loss`, its entry "loss", or the one scalar among others."""
    if isinstance(found, tuple | list):
        found = next((item for item in found if isinstance(item, Tensor) and not item.dim()), found)
    elif isinstance(found, dict) and "loss" in found:
        found = found["loss"]
    elif not isinstance(found, Tensor) and hasattr(found, "loss"):
        found = found.loss
    if not isinstance(found, Tensor):
        raise AttributeError(f"a {type(found).__name__} was returned, which has no loss")
    return found


class MeanLoss:
    """A loss of the user's as the mean that training wants, whichever way it returns it: as `scalar_of` has it, or as a
    pair of numbers, a sum and what it is the sum over.

    `count` is that of the latest call, a tensor without gradient, None where the loss told none: a part of a batch
    counts by it.
    """

    def __init__(self, loss: Callable[[nn.Module, Batch], Any]) -> None:
        self._loss = loss
        self.count: Tensor | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        found = self._loss(model, batch)
        self.count = None
        if not isinstance(found, tuple) or len(found) != 2 or not all(map(_is_number, found)):
            return scalar_of(found)
        total, count = found
        self.count = torch.as_tensor(count, dtype=torch.float32, device=total.device).detach()
        mean: Tensor = total / self.count
        return mean


def _is_number(item: object) -> bool:
    return isinstance(item, int | float) or (isinstance(item, Tensor) and not item.dim())


def counting_labels(model: nn.Module) -> Callable[[Batch], Tensor] | None:
    """What counts the labels that a model's own loss is the mean over; None where its loss is another kind of mean."""
    # transformers' name for the loss; its older causal models have none. Models of others are taken to shift nothing.
    kind = getattr(model, "loss_type", "ForTokenClassification")
    if kind not in (None, "ForCausalLM", "ForConditionalGeneration", "ForMaskedLM", "ForTokenClassification"):
        return None
    return functools.partial(_labelled, is_shifted=kind in (None, "ForCausalLM"))


def _labelled(batch: Batch, *, is_shifted: bool) -> Tensor:
    """How many labels of a batch are trained: all but those that torch's cross entropy ignores. `is_shifted`: a causal
    model of transformers predicts each token from those before it, hence not the first.

    Where a batch has no labels of that kind, each sample counts alike.
    """
    labels = batch.get("labels") if isinstance(batch, dict) else None
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        leaf = next(leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim())
        return torch.tensor(len(leaf), device=leaf.device)
    return (labels[..., 1:] if is_shifted and labels.dim() > 1 else labels).ne(IGNORED).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A training job at a fixed shape. `batch` is samples per optimizer update over all ranks, 0: the loader's own.

    `model` and `data` are called inside the measured process. `data` gives a map-style dataset, an IterableDataset, or
    a DataLoader, of which the dataset, the collate function, the sampler and the batch size are used; how many
    processes load is for techniques to say. `loss` takes the model and a batch and returns the mean loss, a scalar, or
    a pair of a sum and what it is the sum over, or an output with `.loss`. `optimizer` makes the baseline's from the
    trained parameters, None: torch.optim.AdamW at `learning_rate`. `accumulate` is the baseline's number of
    micro-batches of an update. `find_unused_parameters` is for DistributedDataParallel.

    `calls_model` is found out before anything is measured: False of a loss that takes more of a model than its
    forward, as `model.training_step(batch)` does. `tokens_per_sample` is None where samples are not text: then no
    tokens per second are reported. `held_out` are samples to score a classifier on. `text` is where the samples come
    from, and `family` and `size` what the model was built of, where that is known: techniques that feed other text or
    build another model need it. `collate` and `order` are a loader's: `order` makes endless index lists of global
    batches from a batch size and a seed, None: shuffled. `is_stream`: `data` gives an IterableDataset.
    """

    model: Callable[[], nn.Module]
    data: Callable[[], Data]
    batch: int = 0
    loss: Callable[[nn.Module, Batch], Any] = output_loss
    tokens_per_sample: int | None = None
    learning_rate: float = 1e-4
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    accumulate: int = 1
    find_unused_parameters: bool = False
    name: str = ""
    phase: Phase = Phase.PRETRAIN
    held_out: Callable[[], Samples] | None = None
    text: TextSource | None = None
    family: Family | None = None
    size: Dimensions | None = None
    calls_model: bool = True
    collate: Callable[[list[Any]], Batch] = default_collate
    order: Callable[[int, int], Iterable[list[int]]] | None = None
    is_stream: bool = False


class LossModule(nn.Module):
    """A model whose forward pass is its loss, so that what wraps a model, as torch.compile and DistributedDataParallel
    do, wraps what training calls. What else it is asked for, the model inside has."""

    def __init__(self, module: nn.Module, loss: Callable[[nn.Module, Batch], Any]) -> None:
        super().__init__()
        self.module, self._loss = module, loss

    def forward(self, batch: Batch) -> Any:
        return self._loss(self.module, batch)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def own_loss(model: nn.Module, batch: Batch) -> Any:
    """The loss of a model that computes its own in its forward pass."""
    return model(batch)


def first_batch(workload: Workload, count: int | None = None) -> Batch:
    """The first samples as one batch, so many or else as the workload's has. Raises ValueError if there are fewer than
    that."""
    data = workload.data()
    if isinstance(data, IterableDataset):
        found = list(itertools.islice(data, workload.batch))
    else:
        order = workload.order(workload.batch, 0) if workload.order else [range(min(len(data), workload.batch))]
        found = [data[index] for index in next(iter(order))]
    if len(found) < workload.batch and not workload.order:
        raise ValueError(
            f"batch {workload.batch} is more than the {len(found)} samples that {workload.name} has: lower --batch"
        )
    return workload.collate(found[:count])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """One size of a family. `batch` (samples) is the default that it is measured at."""

    layers: int
    width: int
    heads: int
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size(Dimensions):
    """A size of a family that reads text. `sequence` (tokens) is the default that it is measured at."""

    sequence: int
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model family: its sizes, smallest first, and how a size becomes a model.

    Of one that reads text: the most positions that a model has, what it predicts, and `classifier`, which makes a
    sequence classifier of the given number of labels on the same base, its parts named alike. Of another: `samples`,
    which makes its data on the spot, the same at every call.
    """

    name: str
    caption: str
    sizes: Mapping[str, Dimensions]
    # Each family has sizes of one kind, and its functions take just that.
    model: Callable[[Any], nn.Module]
    positions: int | None = None
    classifier: Callable[[Any, int], nn.Module] | None = None
    objective: Callable[[Any], Objective] | None = None
    samples: Callable[[Any], Samples] | None = None


def parameter_count(family: Family, size: Dimensions) -> int:
    """How many parameters a model of this size has; built without memory on the meta device to count them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in family.model(size).parameters())


_REGISTERED: dict[str, Family] = {}


def register(family: Family) -> None:
    """Add a model family of a plugin, so that `--model NAME/SIZE` finds it. Raises ValueError if the name is taken."""
    if family.name in families():
        raise ValueError(f"model family {family.name!r} is already registered: choose another name")
    _REGISTERED[family.name] = family


def families() -> dict[str, Family]:
    """Every family by name: those of bench/models, and what plugins have registered."""
    modules = (module.name for module in pkgutil.iter_modules(bench.models.__path__))
    names = sorted(name for name in modules if not name.startswith("_"))
    built_in = [importlib.import_module(f"bench.models.{name}").FAMILY for name in names]
    plugins.load_installed()
    return {family.name: family for family in built_in} | _REGISTERED
