"""How well a fine-tuned classifier tells the held-out pieces apart."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from bench.setup import TrainingSetup
from harness.message import Message

SCORED = 512
"""Held-out samples that are scored, the same ones in every arm."""


@torch.inference_mode()
def score(setup: TrainingSetup) -> Message:
    """Accuracy and macro F1 on the held-out samples, or nothing where the workload holds none out.

    Macro F1 is the mean over the labels that occur (scikit-learn's f1_score), so that small sections count as much.
    """
    if setup.workload.held_out is None:
        return {}
    # The library takes a second to import, which no other arm should wait for.
    from sklearn.metrics import accuracy_score, f1_score

    samples = setup.workload.held_out()
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:SCORED].tolist()
    loader: DataLoader[Any] = DataLoader(samples, batch_size=setup.share, sampler=order)  # type: ignore[arg-type]
    setup.model.eval()
    truth: list[int] = []
    told: list[int] = []
    for batch in loader:
        placed = tree_map_only(torch.Tensor, lambda item: item.to(setup.device), batch)
        with setup.autocast():
            logits = setup.model(**placed).logits
        truth += batch["labels"].tolist()
        told += logits.argmax(-1).tolist()
    return {
        "accuracy": float(accuracy_score(truth, told)),
        "f1": float(f1_score(truth, told, average="macro", zero_division=0)),
        "scored_samples": len(truth),
    }
