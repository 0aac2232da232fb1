"""A model, its data and its loss at a fixed shape; and the families that models come from."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

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


def output_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The `.loss` that a Hugging Face style model returns for `input_ids, labels`: a scalar, mean over targets."""
    loss: Tensor = model(**batch).loss
    return loss


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
    """A training job at a fixed shape. `batch` is samples per optimizer update over all ranks.

    `model` and `data` are called inside the measured process. `loss` takes the model and a batch and returns the mean
    loss, a scalar. `calls_model` is found out before anything is measured: False of a loss that takes more of a model
    than its forward, as `model.training_step(batch)` does. `tokens_per_sample` is None where samples are not text: then
    no tokens per second are reported. `held_out` are samples to score a classifier on. `text` is where the samples come
    from, and `family` and `size` what the model was built of, where that is known: techniques that feed other text or
    build another model need it.
    """

    model: Callable[[], nn.Module]
    data: Callable[[], Samples]
    batch: int
    loss: Callable[[nn.Module, Batch], Tensor] = output_loss
    tokens_per_sample: int | None = None
    learning_rate: float = 1e-4
    name: str = ""
    phase: Phase = Phase.PRETRAIN
    held_out: Callable[[], Samples] | None = None
    text: TextSource | None = None
    family: Family | None = None
    size: Size | None = None
    calls_model: bool = True


class LossModule(nn.Module):
    """A model whose forward pass is its loss, so that what wraps a model, as torch.compile and DistributedDataParallel
    do, wraps what training calls. What else it is asked for, the model inside has."""

    def __init__(self, module: nn.Module, loss: Callable[[nn.Module, Batch], Tensor]) -> None:
        super().__init__()
        self.module, self._loss = module, loss

    def forward(self, batch: Batch) -> Tensor:
        return self._loss(self.module, batch)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def own_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a model that computes its own in its forward pass."""
    loss: Tensor = model(batch)
    return loss


def first_batch(workload: Workload, count: int | None = None) -> Batch:
    """The first samples as one batch, so many or else as the workload's has. Raises ValueError if there are fewer than
    that."""
    samples = workload.data()
    if len(samples) < workload.batch:
        raise ValueError(
            f"batch {workload.batch} is more than the {len(samples)} samples that {workload.name} has: lower --batch"
        )
    return torch.utils.data.default_collate([samples[index] for index in range(count or workload.batch)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One size of a family. `batch` (samples) and `sequence` (tokens) are the defaults it is measured at."""

    layers: int
    width: int
    heads: int
    batch: int
    sequence: int
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model family: its sizes, smallest first, the most positions a model has, how a size becomes a model, and what
    it predicts.

    `classifier` makes a sequence classifier of the given number of labels on the same base, its parts named alike.
    """

    name: str
    caption: str
    positions: int
    sizes: Mapping[str, Size]
    model: Callable[[Size], nn.Module]
    classifier: Callable[[Size, int], nn.Module]
    objective: Callable[[Size], Objective]


def parameter_count(family: Family, size: Size) -> int:
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
