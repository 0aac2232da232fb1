"""DistilBERT, masked language modelling (Sanh et al. 2019, arXiv:1910.01108). base (66M parameters) is as published.

Here it is trained on the text alone, without a teacher, with the published dropout of 0.1. Nano, tiny and mini are
ours, and read bytes.
"""

from __future__ import annotations

from typing import Any

from bench.corpus import BYTES, bpe
from bench.models._architecture import untrained, untrained_classifier
from bench.samples import Masked
from bench.workload import Family, Size

POSITIONS = 512


def _config(size: Size) -> dict[str, Any]:
    return {
        "vocab_size": size.vocabulary.size,
        "max_position_embeddings": POSITIONS,
        "dim": size.width,
        "n_layers": size.layers,
        "n_heads": size.heads,
        "hidden_dim": 4 * size.width,
        "pad_token_id": size.vocabulary.pad,
    }


FAMILY = Family(
    name="distilbert",
    caption="DistilBERT, masked language model",
    positions=POSITIONS,
    model=untrained("DistilBertForMaskedLM", _config),
    classifier=untrained_classifier("DistilBertForSequenceClassification", _config),
    objective=lambda size: Masked(size.vocabulary),
    sizes={
        "nano": Size(layers=2, width=64, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "tiny": Size(layers=2, width=128, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "mini": Size(layers=4, width=256, heads=4, batch=8, sequence=64, vocabulary=BYTES),
        "base": Size(layers=6, width=768, heads=12, batch=16, sequence=128, vocabulary=bpe(30522)),
    },
)
