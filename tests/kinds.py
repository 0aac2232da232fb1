"""What a user's function may return: a small example of each kind, with real libraries."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler
from transformers import BatchEncoding, GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from bench.workload import Workload

LENGTH = 32


class Sentences(Dataset[dict[str, Any]]):
    """Lists of tokens of different lengths."""

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        length = int(torch.randint(8, LENGTH, (), generator=generator))
        ids = torch.randint(3, 260, (length,), generator=generator).tolist()
        return {"input_ids": ids, "labels": list(ids), "attention_mask": [1] * length}


def padded(samples: list[dict[str, Any]]) -> Any:
    longest = max(len(sample["input_ids"]) for sample in samples)

    def pad(name: str, value: int) -> Tensor:
        return torch.tensor([sample[name] + [value] * (longest - len(sample[name])) for sample in samples])

    made = {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100), "attention_mask": pad("attention_mask", 0)}
    return BatchEncoding(made)  # As transformers' collators do.


def gpt(**options: Any) -> nn.Module:
    config = GPT2Config(
        vocab_size=260, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1, pad_token_id=0
    )
    config.update(options)
    model: nn.Module = GPT2LMHeadModel(config)
    # transformers 5 cannot infer the loss from this class's name; its Trainer would then count first tokens as labels.
    model.loss_type = "ForCausalLM"  # type: ignore[assignment]
    return model


def trainer(**options: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=4, use_cpu=True, report_to=[], **options
    )
    return Trainer(model=gpt(), args=arguments, train_dataset=Sentences(), data_collator=padded)


def accumulating_trainer() -> Any:
    return trainer(gradient_accumulation_steps=2, weight_decay=0.1, learning_rate=0.1, optim="sgd")


def trainer_with_a_loss() -> Any:
    from transformers import Trainer, TrainingArguments

    class Weighted(Trainer):  # type: ignore[misc]
        def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            logits = model(**{name: inputs[name] for name in ("input_ids", "attention_mask")}).logits[:, :-1]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), inputs["labels"][:, 1:].flatten(), reduction="sum")
            return (loss / 100, logits) if return_outputs else loss / 100

    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=8, use_cpu=True, report_to=[], optim="sgd"
    )
    return Weighted(model=gpt(), args=arguments, train_dataset=Sentences(), data_collator=padded)


def points() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(512, 64, generator=generator), torch.randint(0, 10, (512,), generator=generator))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def _module(**attributes: Any) -> Any:
    import lightning

    class Classifier(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = net()
            self.automatic_optimization = attributes.get("automatic", True)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("loss", loss)
            return {"loss": loss}

        def configure_optimizers(self) -> Any:
            decayed = [item for item in self.parameters() if item.dim() > 1]
            others = [item for item in self.parameters() if item.dim() <= 1]
            groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
            optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 10)]

    return Classifier()


def lightning_with_a_loader() -> Any:
    return _module(), DataLoader(points(), batch_size=16, shuffle=True)


def lightning_with_a_data_module() -> Any:
    import lightning

    class Points(lightning.LightningDataModule):  # type: ignore[misc]
        def setup(self, stage: str) -> None:
            self.points = points()

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.points, batch_size=16, shuffle=True)

    return _module(), Points()


def by_hand() -> Any:
    return _module(automatic=False), DataLoader(points(), batch_size=16)


def triple_of_torch() -> Any:
    return net(), DataLoader(points(), batch_size=16, shuffle=True), nn.CrossEntropyLoss()


def triple_of_ours() -> Any:
    return net(), DataLoader(points(), batch_size=16), cross_entropy


def nonsense() -> Any:
    return net(), "data"


def collated() -> Workload:
    """A DataLoader as given: its data set, batch size and collate function."""
    return Workload(
        model=gpt, data=lambda: DataLoader(Sentences(), batch_size=8, collate_fn=padded), tokens_per_sample=LENGTH
    )


def masking_collator() -> Workload:
    """A collate function that draws random numbers while it makes a batch."""

    def collate(samples: list[Any]) -> Any:
        batch = padded(samples)
        batch["input_ids"][torch.rand(batch["input_ids"].shape) < 0.2] = 2
        return batch

    return Workload(
        model=gpt, data=lambda: DataLoader(Sentences(), batch_size=8, collate_fn=collate), tokens_per_sample=LENGTH
    )


def weighted_sampler() -> Workload:
    def data() -> DataLoader[Any]:
        weights = [1.0] * 10 + [0.0] * 502
        return DataLoader(points(), batch_size=16, sampler=WeightedRandomSampler(weights, 512))

    return Workload(model=net, data=data, loss=cross_entropy)


class Pairs:
    """A custom batch sampler: batches of 8 and of 16."""

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        for size in (8, 16) * 20:
            yield list(range(start, start + size))
            start += size

    def __len__(self) -> int:
        return 40


def own_batches() -> Workload:
    return Workload(model=net, data=lambda: DataLoader(points(), batch_sampler=Pairs()), loss=cross_entropy, batch=16)


class Stream(IterableDataset[Any]):
    """A stream, as for an endless file; this one ends after 100 samples and starts again."""

    def __iter__(self) -> Iterator[Any]:
        for index in range(100):
            generator = torch.Generator().manual_seed(index)
            yield torch.randn(64, generator=generator) * (1 + 0.1 * torch.rand(())), index % 10


def stream() -> Workload:
    return Workload(model=net, data=Stream, loss=cross_entropy, batch=16)


def stream_in_a_loader() -> Workload:
    return Workload(model=net, data=lambda: DataLoader(Stream(), batch_size=16), loss=cross_entropy)


def own_optimizer() -> Workload:
    def optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)

    return Workload(model=net, data=points, loss=cross_entropy, batch=16, optimizer=optimizer)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.extra = net(), nn.Linear(64, 64)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.used(inputs)
        return logits


def unused() -> Workload:
    return Workload(model=Unused, data=points, loss=cross_entropy, batch=16, find_unused_parameters=True)


def unused_and_not_said() -> Workload:
    return Workload(model=Unused, data=points, loss=cross_entropy, batch=16)


def sum_and_count() -> Workload:
    """Samples of different lengths; the loss is a sum over tokens, with their count."""

    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        targets = batch["labels"][:, 1:].flatten()
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum"), (targets != -100).sum()

    return Workload(
        model=gpt,
        data=lambda: DataLoader(Sentences(), batch_size=8, collate_fn=padded),
        loss=loss,
        tokens_per_sample=LENGTH,
    )


class NanoGPT(nn.Module):
    """The interface of nanoGPT: forward(idx, targets) gives (logits, loss)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(260, 32), nn.Linear(32, 260)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        logits = self.head(self.embedding(idx))
        if targets is None:
            return logits, None
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


def nano_gpt() -> nn.Module:
    return NanoGPT()


class InADict(NanoGPT):
    def forward(self, input_ids: Tensor, labels: Tensor) -> Any:  # type: ignore[override]
        logits, loss = super().forward(input_ids, labels)
        return {"loss": loss, "logits": logits}


def in_a_dict() -> nn.Module:
    return InADict()


def knows_too_few_tokens() -> nn.Module:
    model = InADict()
    model.embedding = nn.Embedding(65, 32)
    return model


class OneForEachToken(NanoGPT):
    def forward(self, input_ids: Tensor, labels: Tensor) -> Any:  # type: ignore[override]
        logits, _ = super().forward(input_ids)
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")


def a_loss_for_each_token() -> nn.Module:
    return OneForEachToken()


def cannot_be_guessed() -> nn.Module:
    return net()


an_instance = net()


def classifier(num_labels: int) -> nn.Module:
    config = GPT2Config(
        vocab_size=260, n_embd=32, n_layer=1, n_head=2, n_positions=64, pad_token_id=258, num_labels=num_labels
    )
    model: nn.Module = GPT2ForSequenceClassification(config)
    return model
