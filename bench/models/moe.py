"""Mixtral, a causal mixture of experts (Jiang et al. 2024, arXiv:2401.04088). 8x7b (46.7B parameters) is as published.

A router sends each token to two of a layer's experts. The loss that balances the experts is left out, as in
transformers' default for Mixtral. Nano, tiny, mini and small are ours; the first three read bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.corpus import BYTES, bpe
from bench.models._architecture import untrained, untrained_classifier
from bench.samples import causal
from bench.workload import Family, Size

POSITIONS = 32768
EXPERTS_PER_TOKEN = 2
_BPE = bpe(32000)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureSize(Size):
    """Each group of `sharing` heads uses one head of keys and values. An expert is 3.5 times as wide as the model."""

    experts: int
    sharing: int


def _config(size: Size) -> dict[str, Any]:
    assert isinstance(size, MixtureSize)
    return {
        "vocab_size": size.vocabulary.size,
        "max_position_embeddings": POSITIONS,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads // size.sharing,
        "intermediate_size": round(3.5 * size.width),
        "num_local_experts": size.experts,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "pad_token_id": size.vocabulary.pad,
        "bos_token_id": size.vocabulary.end,
        "eos_token_id": size.vocabulary.end,
        "use_cache": False,
    }


def _to_count(model: Any) -> None:
    """Use one matrix product per token and expert, which is the same work: torch cannot count that of a grouped float32
    product."""
    model.set_experts_implementation("batched_mm")


def classifier(size: Size, labels: int) -> nn.Module:
    """The same base with a head that classifies a sequence by its last token that is not padding."""
    model = untrained_classifier("MixtralForSequenceClassification", _config)(size, labels)
    if torch.get_default_device().type == "meta":
        _to_count(model)
    return model


FAMILY = Family(
    name="moe",
    caption="Mixtral, causal mixture of experts",
    positions=POSITIONS,
    model=untrained("MixtralForCausalLM", _config, to_count=_to_count),
    classifier=classifier,
    objective=lambda size: causal,
    sizes={
        "nano": MixtureSize(layers=2, width=64, heads=2, sharing=2, experts=4, batch=8, sequence=128, vocabulary=BYTES),
        "tiny": MixtureSize(layers=4, width=128, heads=4, sharing=2, experts=4, batch=8, sequence=64, vocabulary=BYTES),
        "mini": MixtureSize(layers=6, width=256, heads=8, sharing=4, experts=8, batch=8, sequence=64, vocabulary=BYTES),
        "small": MixtureSize(
            layers=12, width=768, heads=12, sharing=4, experts=8, batch=8, sequence=512, vocabulary=_BPE
        ),
        "8x7b": MixtureSize(
            layers=32, width=4096, heads=32, sharing=4, experts=8, batch=4, sequence=1024, vocabulary=_BPE
        ),
    },
)
