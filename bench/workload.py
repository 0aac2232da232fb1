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
    """The `.loss` that a Hugging Face model returns for `input_ids, labels`: a scalar, the mean over targets. Other
    models return it in a dict or a tuple."""
    return scalar_of(model(**batch))


def scalar_of(found: Any) -> Tensor:
    """The loss in what a model returns: the value itself, its `.loss`, its entry "loss", or the only scalar in a
    tuple."""
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
    """The user's loss as the mean that training needs, whichever way it is returned: as `scalar_of` understands it, or
    as a pair of numbers, a sum and the number of its terms.

    `count` is that number in the latest call, a tensor without gradient, or None if the loss returned none. It is the
    weight of a part of a batch.
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
    """A function that counts the labels that a model's own loss is the mean over. None if its loss is another kind of
    mean."""
    # transformers' name for the loss; its older causal models have none. Other models are assumed not to shift labels.
    kind = getattr(model, "loss_type", "ForTokenClassification")
    if kind not in (None, "ForCausalLM", "ForConditionalGeneration", "ForMaskedLM", "ForTokenClassification"):
        return None
    return functools.partial(_labelled, is_shifted=kind in (None, "ForCausalLM"))


def _labelled(batch: Batch, *, is_shifted: bool) -> Tensor:
    """How many labels of a batch are trained on: all but those that torch's cross entropy ignores. `is_shifted`: a
    causal transformers model predicts each token from those before it, and so never the first.

    If a batch has no such labels, every sample counts the same.
    """
    labels = batch.get("labels") if isinstance(batch, dict) else None
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        leaf = next(leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim())
        return torch.tensor(len(leaf), device=leaf.device)
    return (labels[..., 1:] if is_shifted and labels.dim() > 1 else labels).ne(IGNORED).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A training job at a fixed shape.

    `model` and `data` are called inside the measured process. `data` returns a map-style dataset, an IterableDataset,
    or a DataLoader, of which the dataset, the collate function, the sampler and the batch size are used; the number of
    loading processes is left to techniques. `batch` is in samples per optimizer update over all ranks; 0: the loader's
    own.

    `loss` takes the model and a batch. It returns the mean loss, a scalar; or a pair of a sum and the number of its
    terms; or an output with `.loss`. `optimizer` makes the baseline's optimizer from the trained parameters; None:
    torch.optim.AdamW at `learning_rate`. `accumulate` is the baseline's number of micro-batches per update.
    `find_unused_parameters` is passed to DistributedDataParallel.

    `tokens_per_sample` is None if samples are not text: then no tokens per second are reported. `held_out` are samples
    to score a classifier on. `text` is where the samples come from, and `family` and `size` are what the model was
    built from, if known: techniques that feed other text or build another model need them. `collate` and `order` are
    taken from a loader: `order` makes endless index lists of global batches from a batch size and a seed; None:
    shuffled. `is_stream` says that `data` returns an IterableDataset. `calls_model` is found out before anything is
    measured: it is False if the loss uses more of the model than its forward, as in `model.training_step(batch)`.
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
    """A model whose forward pass is its loss, so that what wraps a model, such as torch.compile and
    DistributedDataParallel, wraps what training calls. Any other attribute is looked up in the model inside."""

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
    """The loss of a model that computes it in its own forward pass."""
    return model(batch)


def first_batch(workload: Workload, count: int | None = None) -> Batch:
    """The first `count` samples as one batch; None: as many as the workload's batch has. Raises ValueError if the data
    has fewer samples than that batch."""
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
    """One size of a family. `batch` is the default number of samples per update."""

    layers: int
    width: int
    heads: int
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size(Dimensions):
    """A size of a family that reads text. `sequence` is the default number of tokens per sample."""

    sequence: int
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model family: its sizes, smallest first, and how a size becomes a model.

    A family that reads text has `positions`, the most that a model has; `objective`, what it predicts; and
    `classifier`, which makes a sequence classifier with a given number of labels on the same base, whose parts have the
    same names. Any other family has `samples`, which generates its data, the same in every call.
    """

    name: str
    caption: str
    sizes: Mapping[str, Dimensions]
    # All sizes of a family are of one kind, and its functions take just that.
    model: Callable[[Any], nn.Module]
    positions: int | None = None
    classifier: Callable[[Any, int], nn.Module] | None = None
    objective: Callable[[Any], Objective] | None = None
    samples: Callable[[Any], Samples] | None = None


def parameter_count(family: Family, size: Dimensions) -> int:
    """How many parameters a model of this size has. It is built on the meta device, without memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in family.model(size).parameters())


_REGISTERED: dict[str, Family] = {}


def register(family: Family) -> None:
    """Add a plugin's model family, so that `--model NAME/SIZE` finds it. Raises ValueError if the name is taken."""
    if family.name in families():
        raise ValueError(f"model family {family.name!r} is already registered: choose another name")
    _REGISTERED[family.name] = family


def families() -> dict[str, Family]:
    """Every family by name: those in bench/models, and those that plugins have registered."""
    modules = (module.name for module in pkgutil.iter_modules(bench.models.__path__))
    names = sorted(name for name in modules if not name.startswith("_"))
    built_in = [importlib.import_module(f"bench.models.{name}").FAMILY for name in names]
    plugins.load_installed()
    return {family.name: family for family in built_in} | _REGISTERED
