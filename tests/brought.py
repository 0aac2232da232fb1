"""Workloads as users write them; each has a property that can mislead a benchmark."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from bench.workload import Workload

CLASSES = 10


def _points(features: int = 64, samples: int = 1024) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, features, generator=generator)
    return TensorDataset(inputs, torch.randint(0, CLASSES, (samples,), generator=generator))


def _cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


class Lightning(nn.Module):
    """In Lightning's style: the loss is a method, and forward is only for inference."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Dropout(0.1), nn.Linear(128, CLASSES))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs)
        return logits

    def training_step(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def training_step() -> Workload:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        found: Tensor = model.training_step(batch)  # type: ignore[operator]
        return found

    return Workload(model=Lightning, data=_points, loss=loss, batch=16)


def training_step_unwrapped() -> Workload:
    """A common idiom that works both with and without DistributedDataParallel."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        found: Tensor = getattr(model, "module", model).training_step(batch)  # type: ignore[operator]
        return found

    return Workload(model=Lightning, data=_points, loss=loss, batch=16)


def part_called() -> Workload:
    """The loss calls a part of the module, as in autoencoders and models with several heads."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model.net(batch[0]), batch[1])  # type: ignore[operator]

    return Workload(model=Lightning, data=_points, loss=loss, batch=16)


class Truncated(Dataset[tuple[Tensor, int]]):
    """A data set with one sample that cannot be read."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 40:
            raise OSError("image /data/40.jpg is truncated")
        return torch.zeros(64), index % CLASSES


def one_is_truncated() -> Workload:
    return Workload(model=_net, data=Truncated, loss=_cross_entropy, batch=16)


class Noisy(Dataset[tuple[Tensor, int]]):
    """Augments its samples with one of several random generators."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw

    def __len__(self) -> int:
        return 1024

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        plain = torch.randn(64, generator=torch.Generator().manual_seed(index))
        return plain * (1 + self._draw()), index % CLASSES


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, CLASSES))


def _noisy(draw: Callable[[], float]) -> Workload:
    return Workload(model=_net, data=lambda: Noisy(draw), loss=_cross_entropy, batch=16)


def draws_by_numpy() -> Workload:
    return _noisy(lambda: float(np.random.normal()))


def draws_by_python() -> Workload:
    return _noisy(random.random)


def draws_by_the_clock() -> Workload:
    return _noisy(lambda: time.perf_counter_ns() % 1000 / 1000)


class Masking(nn.Sequential):
    """Masks its input with NumPy in its forward pass, as SpecAugment does."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, CLASSES))

    def forward(self, inputs: Tensor) -> Tensor:
        kept = torch.from_numpy(np.random.random(inputs.shape) < 0.7)
        found: Tensor = super().forward(inputs * kept)  # type: ignore[no-untyped-call]
        return found


def draws_in_forward() -> Workload:
    return Workload(model=Masking, data=_points, loss=_cross_entropy, batch=16)


class Chat(Dataset[dict[str, Tensor]]):
    """Prompts are not trained on, so each sample has a different number of labels."""

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(0, 260, (32,), generator=generator)
        labels = ids.clone()
        labels[: int(torch.randint(2, 30, (), generator=generator))] = -100
        return {"input_ids": ids, "labels": labels}


def _gpt() -> nn.Module:
    model: nn.Module = GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=2, n_positions=32))
    return model


def prompts_masked() -> Workload:
    return Workload(model=_gpt, data=Chat, batch=8, tokens_per_sample=32)


LENGTH = 32


class Packed(Dataset[dict[str, Tensor]]):
    """Two documents per sample that do not see each other: a mask with one row per token."""

    def __init__(self, as_mask: Callable[[Tensor], Tensor]) -> None:
        self._as_mask = as_mask

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = torch.randint(0, 260, (LENGTH,), generator=torch.Generator().manual_seed(index))
        document = (torch.arange(LENGTH) >= 20).long()
        allowed = (document[:, None] == document[None, :]).tril()
        return {"input_ids": ids, "labels": ids.clone(), "attention_mask": self._as_mask(allowed[None])}


def _llama() -> nn.Module:
    config = LlamaConfig(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    model: nn.Module = LlamaForCausalLM(config)
    return model


def _packed(as_mask: Callable[[Tensor], Tensor]) -> Workload:
    return Workload(model=_llama, data=lambda: Packed(as_mask), batch=8, tokens_per_sample=LENGTH)


def packed_boolean() -> Workload:
    return _packed(lambda allowed: allowed)


def packed_additive() -> Workload:
    return _packed(lambda allowed: torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min))


def packed_infinite() -> Workload:
    return _packed(lambda allowed: torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf")))


class TimeFirst(nn.Module):
    """A recurrent network in torch's default layout: its input is (time, samples, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 16), nn.Linear(16, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.lstm(inputs)
        logits: Tensor = self.head(hidden[-1])
        return logits


def time_first() -> Workload:
    def data() -> TensorDataset:
        generator = torch.Generator().manual_seed(0)
        return TensorDataset(
            torch.randn(512, 20, 8, generator=generator), torch.randint(0, CLASSES, (512,), generator=generator)
        )

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0].transpose(0, 1)), batch[1])

    return Workload(model=TimeFirst, data=data, loss=loss, batch=16)


def _small_targets() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(1024, 32, generator=generator), 1e-3 * torch.randn(1024, 1, generator=generator))


def _small_net() -> nn.Module:
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 1))
    with torch.no_grad():
        for parameter in model[2].parameters():
            parameter.mul_(1e-3)
    return model


def _regression(reduction: str, scale: float = 1.0) -> Workload:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return scale * nn.functional.mse_loss(model(batch[0]), batch[1], reduction=reduction)

    return Workload(model=_small_net, data=_small_targets, loss=loss, batch=16)


def small_loss() -> Workload:
    """Losses of about a millionth."""
    return _regression("mean")


def small_sum() -> Workload:
    """The loss is a sum over the batch: half a batch has half the loss."""
    return _regression("sum")


def large_sum() -> Workload:
    return _regression("sum", 1e6)


class BatchNorm(nn.Sequential):
    """Depends on the whole batch, keeps running statistics, and creates a constant in its forward pass."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, CLASSES))

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = super().forward(inputs * torch.tensor(2.0))  # type: ignore[no-untyped-call]
        return found


def across_the_batch() -> Workload:
    return Workload(model=BatchNorm, data=_points, loss=_cross_entropy, batch=16)


def default_cache() -> nn.Module:
    """transformers' default, which creates a cache of keys and values even in training."""
    return _llama()


class Elementwise(nn.Module):
    """No matrix product at all."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs * self.scale)[:, :CLASSES]


def without_products() -> Workload:
    return Workload(model=Elementwise, data=_points, loss=_cross_entropy, batch=16)


def checkpointed() -> nn.Module:
    """A model that recomputes its activations by itself."""
    model = _llama()
    model.gradient_checkpointing_enable()  # type: ignore[operator]
    return model


class Carrying(nn.Module):
    """Carries its hidden state, whose size is that of the batch, from update to update."""

    hidden: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, CLASSES)
        self.register_buffer("hidden", torch.zeros(1, 16, 16))

    def forward(self, inputs: Tensor) -> Tensor:
        found, hidden = self.gru(inputs, self.hidden)
        self.hidden = hidden.detach()
        logits: Tensor = self.head(found[:, -1])
        return logits


def comes_in_bfloat16() -> Workload:
    def model() -> nn.Module:
        return _net().to(torch.bfloat16)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0].bfloat16()).float(), batch[1])

    return Workload(model=model, data=_points, loss=loss, batch=16)


def carried() -> Workload:
    def data() -> TensorDataset:
        generator = torch.Generator().manual_seed(0)
        return TensorDataset(
            torch.randn(512, 20, 8, generator=generator), torch.randint(0, CLASSES, (512,), generator=generator)
        )

    return Workload(model=Carrying, data=data, loss=_cross_entropy, batch=16)
