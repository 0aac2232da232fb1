"""RoBERTa, masked language modelling (Liu et al. 2019, arXiv:1907.11692). base (125M parameters) and large are as
published.

Dropout is 0.1, as published. Nano, tiny and mini are ours, and read bytes.
"""

from __future__ import annotations

from typing import Any

from bench.corpus import BYTES, bpe
from bench.models._architecture import untrained, untrained_classifier
from bench.samples import Masked
from bench.workload import Family, Size

POSITIONS = 512
_BPE = bpe(50265)


def _config(size: Size) -> dict[str, Any]:
    return {
        "vocab_size": size.vocabulary.size,
        # Positions are numbered from the padding id on. The rows up to it are never read, in the published model
        # either.
        "max_position_embeddings": size.vocabulary.pad + 1 + POSITIONS,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.width,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": size.vocabulary.pad,
        "bos_token_id": size.vocabulary.end,
        "eos_token_id": size.vocabulary.end,
    }


FAMILY = Family(
    name="roberta",
    caption="RoBERTa, masked language model",
    positions=POSITIONS,
    model=untrained("RobertaForMaskedLM", _config),
    classifier=untrained_classifier("RobertaForSequenceClassification", _config),
    objective=lambda size: Masked(size.vocabulary),
    sizes={
        "nano": Size(layers=2, width=64, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "tiny": Size(layers=2, width=128, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "mini": Size(layers=4, width=256, heads=4, batch=8, sequence=64, vocabulary=BYTES),
        "base": Size(layers=12, width=768, heads=12, batch=16, sequence=128, vocabulary=_BPE),
        "large": Size(layers=24, width=1024, heads=16, batch=16, sequence=128, vocabulary=_BPE),
    },
)
