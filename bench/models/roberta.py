"""RoBERTa, masked language modelling (Liu et al. 2019, arXiv:1907.11692). base (125M parameters), large as published.

Nano, tiny and mini are ours, and read bytes.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from bench.corpus import BYTES, bpe
from bench.samples import Masked
from bench.workload import Family, Size

POSITIONS = 512
_BPE = bpe(50265)


def _config(size: Size, **more: Any) -> Any:
    from transformers import RobertaConfig

    return RobertaConfig(
        vocab_size=size.vocabulary.size,
        # Positions are numbered from the padding id on: the rows up to it are never read, in the published model too.
        max_position_embeddings=size.vocabulary.pad + 1 + POSITIONS,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=size.vocabulary.pad,
        bos_token_id=size.vocabulary.end,
        eos_token_id=size.vocabulary.end,
        **more,
    )


def build(size: Size) -> nn.Module:
    """A freshly initialised RobertaForMaskedLM with the published dropout of 0.1."""
    from transformers import RobertaForMaskedLM

    model: nn.Module = RobertaForMaskedLM(_config(size))
    return model


def classifier(size: Size, labels: int) -> nn.Module:
    """The same base under a head that tells a sequence's class from its first token."""
    from transformers import RobertaForSequenceClassification

    model: nn.Module = RobertaForSequenceClassification(_config(size, num_labels=labels))
    return model


FAMILY = Family(
    name="roberta",
    caption="RoBERTa, masked language model",
    positions=POSITIONS,
    model=build,
    classifier=classifier,
    objective=lambda size: Masked(size.vocabulary),
    sizes={
        "nano": Size(layers=2, width=64, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "tiny": Size(layers=2, width=128, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "mini": Size(layers=4, width=256, heads=4, batch=8, sequence=64, vocabulary=BYTES),
        "base": Size(layers=12, width=768, heads=12, batch=16, sequence=128, vocabulary=_BPE),
        "large": Size(layers=24, width=1024, heads=16, batch=16, sequence=128, vocabulary=_BPE),
    },
)
