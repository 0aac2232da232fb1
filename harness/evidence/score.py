"""How good a trained model is on held-out data: how well a classifier predicts labels, and how close the text of an
encoder-decoder model comes to the real continuation."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from bench.corpus import tokenizer_of
from bench.samples import IGNORED, continuation
from bench.setup import TrainingSetup
from bench.workload import Workload
from harness.message import Message

SCORED = 512
"""How many held-out samples are scored, the same ones in every arm."""

CONTINUED = 64
"""How many of them are continued: each word takes a pass through the model."""


@torch.inference_mode()
def score(setup: TrainingSetup) -> Message:
    """Accuracy and macro precision, recall and F1 on held-out samples, or nothing if the workload holds none out.

    Macro is the mean over the labels that occur (scikit-learn's), so that small sections count as much.
    """
    if setup.workload.held_out is None:
        return {}
    # The library takes a second to import, which only arms that need it should wait for.
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    setup.model.eval()
    truth: list[int] = []
    told: list[int] = []
    for batch in _drawn(setup.workload, SCORED, setup.share):
        placed = tree_map_only(torch.Tensor, lambda item: item.to(setup.device), batch)
        with setup.autocast():
            logits = setup.model(**placed).logits
        truth += batch["labels"].tolist()
        told += logits.argmax(-1).tolist()
    precision, recall, f1, _ = precision_recall_fscore_support(truth, told, average="macro", zero_division=0)
    return {
        "accuracy": float(accuracy_score(truth, told)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "scored_samples": len(truth),
    }


def is_continued(workload: Workload) -> bool:
    """Whether the workload's model writes the second half of a text from the first."""
    return workload.text is not None and workload.text.objective is continuation


@torch.inference_mode()
def continued(model: Any, workload: Workload, device: torch.device) -> Message:
    """BLEU (Papineni et al. 2002) and chrF (Popović 2015), from 0 to 100, of the greedy output of a plain transformers
    model, against the real continuation of held-out text; empty if sacrebleu is not installed."""
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        return {}
    assert workload.text is not None
    tokenizer = tokenizer_of(workload.text.corpus, workload.text.vocabulary)
    wanted: list[str] = []
    told: list[str] = []
    for batch in _drawn(workload, CONTINUED, workload.batch):
        labels = batch.pop("labels")
        shown = {name: item.to(device) for name, item in batch.items()}
        found = model.generate(**shown, max_new_tokens=labels.shape[1], do_sample=False, use_cache=True)
        told += tokenizer.batch_decode(found, skip_special_tokens=True)
        wanted += [tokenizer.decode(row[row != IGNORED], skip_special_tokens=True) for row in labels]
    scores = {"bleu": BLEU(), "chrf": CHRF()}
    return {name: float(metric.corpus_score(told, [wanted]).score) for name, metric in scores.items()}


def _drawn(workload: Workload, most: int, batch: int) -> DataLoader[Any]:
    """Batches of up to `most` held-out samples, the same ones in every arm."""
    assert workload.held_out is not None
    samples = workload.held_out()
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:most].tolist()
    return DataLoader(samples, batch_size=batch, sampler=order)  # type: ignore[arg-type]
