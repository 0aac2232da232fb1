"""ALBERT, masked language modelling (Lan et al. 2019, arXiv:1909.11942): all layers share one set of weights.

base (12M parameters) to xxlarge are as published, but without the sentence-order head and, as in the second release,
without dropout. Nano, tiny and mini are ours, and read bytes.
"""

from __future__ import annotations

from typing import Any

from bench.corpus import BYTES, bpe
from bench.models._architecture import untrained, untrained_classifier
from bench.samples import Masked
from bench.workload import Family, Size

POSITIONS = 512
EMBEDDING = 128
_BPE = bpe(30000)


def _config(size: Size) -> dict[str, Any]:
    return {
        "vocab_size": size.vocabulary.size,
        "max_position_embeddings": POSITIONS,
        # ALBERT factorises the embedding to make it narrower than the layers, so it must not be wider.
        "embedding_size": min(EMBEDDING, size.width),
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.width,
        "pad_token_id": size.vocabulary.pad,
        "bos_token_id": size.vocabulary.end,
        "eos_token_id": size.vocabulary.end,
    }


FAMILY = Family(
    name="albert",
    caption="ALBERT, masked language model whose layers share their weights",
    positions=POSITIONS,
    model=untrained("AlbertForMaskedLM", _config),
    classifier=untrained_classifier("AlbertForSequenceClassification", _config),
    objective=lambda size: Masked(size.vocabulary),
    sizes={
        "nano": Size(layers=2, width=64, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "tiny": Size(layers=2, width=128, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "mini": Size(layers=4, width=256, heads=4, batch=8, sequence=64, vocabulary=BYTES),
        "base": Size(layers=12, width=768, heads=12, batch=16, sequence=128, vocabulary=_BPE),
        "large": Size(layers=24, width=1024, heads=16, batch=16, sequence=128, vocabulary=_BPE),
        "xlarge": Size(layers=24, width=2048, heads=16, batch=16, sequence=128, vocabulary=_BPE),
        "xxlarge": Size(layers=12, width=4096, heads=64, batch=16, sequence=128, vocabulary=_BPE),
    },
)
