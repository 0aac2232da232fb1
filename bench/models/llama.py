"""Llama 3, causal language modelling (arXiv:2407.21783): rotary positions, gated layers, shared keys and values.

8b is as published; 1b (1.23B parameters) and 3b have the shapes of Llama 3.2, whose model card is
https://huggingface.co/meta-llama/Llama-3.2-1B. Nano, tiny and mini are ours, and read bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.corpus import BYTES, bpe
from bench.models._architecture import untrained, untrained_classifier
from bench.samples import causal
from bench.workload import Family, Size

POSITIONS = 8192
"""The length in pretraining, before it was extended to longer text."""
_BPE = bpe(128256)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaSize(Size):
    """Each group of `sharing` heads uses one head of keys and values. A gated layer is `expansion` times as wide as the
    model.

    `tied`: the output head is the input embedding.
    """

    sharing: int
    expansion: float
    tied: bool = False


def _config(size: Size) -> dict[str, Any]:
    assert isinstance(size, LlamaSize)
    return {
        "vocab_size": size.vocabulary.size,
        "max_position_embeddings": POSITIONS,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads // size.sharing,
        "intermediate_size": round(size.expansion * size.width),
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        "tie_word_embeddings": size.tied,
        "pad_token_id": size.vocabulary.pad,
        "bos_token_id": size.vocabulary.end,
        "eos_token_id": size.vocabulary.end,
        "use_cache": False,
    }


FAMILY = Family(
    name="llama",
    caption="Llama 3, causal language model",
    positions=POSITIONS,
    model=untrained("LlamaForCausalLM", _config),
    classifier=untrained_classifier("LlamaForSequenceClassification", _config),
    objective=lambda size: causal,
    sizes={
        "nano": LlamaSize(
            layers=2, width=64, heads=2, sharing=2, expansion=3.5, batch=8, sequence=128, vocabulary=BYTES
        ),
        "tiny": LlamaSize(
            layers=4, width=128, heads=4, sharing=2, expansion=3.5, batch=8, sequence=64, vocabulary=BYTES
        ),
        "mini": LlamaSize(
            layers=6, width=256, heads=8, sharing=4, expansion=3.5, batch=8, sequence=64, vocabulary=BYTES
        ),
        "1b": LlamaSize(
            layers=16, width=2048, heads=32, sharing=4, expansion=4, tied=True, batch=4, sequence=1024, vocabulary=_BPE
        ),
        "3b": LlamaSize(
            layers=28,
            width=3072,
            heads=24,
            sharing=3,
            expansion=8 / 3,
            tied=True,
            batch=4,
            sequence=1024,
            vocabulary=_BPE,
        ),
        "8b": LlamaSize(
            layers=32, width=4096, heads=32, sharing=4, expansion=3.5, batch=4, sequence=1024, vocabulary=_BPE
        ),
    },
)
