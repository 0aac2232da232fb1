"""BERT, masked language modelling (Devlin et al. 2018); tiny, mini, small and medium follow Turc et al. 2019.

Dropout is 0.1, as published. Nano is ours, for tests. The three smallest read bytes, so their embeddings are smaller
than the published ones.
"""

from __future__ import annotations

from typing import Any

from bench.corpus import BYTES, bpe
from bench.models._architecture import untrained, untrained_classifier
from bench.samples import Masked
from bench.workload import Family, Size

POSITIONS = 512
_BPE = bpe(30522)


def _config(size: Size) -> dict[str, Any]:
    return {
        "vocab_size": size.vocabulary.size,
        "max_position_embeddings": POSITIONS,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.width,
        "pad_token_id": size.vocabulary.pad,
    }


FAMILY = Family(
    name="bert",
    caption="BERT, masked language model",
    positions=POSITIONS,
    model=untrained("BertForMaskedLM", _config),
    classifier=untrained_classifier("BertForSequenceClassification", _config),
    objective=lambda size: Masked(size.vocabulary),
    sizes={
        "nano": Size(layers=2, width=64, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "tiny": Size(layers=2, width=128, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "mini": Size(layers=4, width=256, heads=4, batch=8, sequence=64, vocabulary=BYTES),
        "small": Size(layers=4, width=512, heads=8, batch=8, sequence=128, vocabulary=_BPE),
        "medium": Size(layers=8, width=512, heads=8, batch=8, sequence=128, vocabulary=_BPE),
        "base": Size(layers=12, width=768, heads=12, batch=16, sequence=128, vocabulary=_BPE),
        "large": Size(layers=24, width=1024, heads=16, batch=16, sequence=128, vocabulary=_BPE),
    },
)
