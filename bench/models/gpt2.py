"""GPT-2, causal language modelling (Radford et al. 2019). small to xl are as published, with a dropout of 0.1; nano,
tiny and mini are ours."""

from __future__ import annotations

from typing import Any

from bench.corpus import BYTES, bpe
from bench.models._architecture import untrained, untrained_classifier
from bench.samples import causal
from bench.workload import Family, Size

POSITIONS = 1024
_BPE = bpe(50257)


def _config(size: Size) -> dict[str, Any]:
    return {
        "vocab_size": size.vocabulary.size,
        "n_positions": POSITIONS,
        "n_embd": size.width,
        "n_layer": size.layers,
        "n_head": size.heads,
        "bos_token_id": size.vocabulary.end,
        "eos_token_id": size.vocabulary.end,
        "pad_token_id": size.vocabulary.pad,
        "use_cache": False,
    }


# transformers 5 cannot infer the loss from this class's name, and its warning about that would break a compiled graph.
FAMILY = Family(
    name="gpt2",
    caption="GPT-2, causal language model",
    positions=POSITIONS,
    model=untrained("GPT2LMHeadModel", _config, loss_type="ForCausalLM"),
    classifier=untrained_classifier("GPT2ForSequenceClassification", _config),
    objective=lambda size: causal,
    sizes={
        "nano": Size(layers=2, width=64, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "tiny": Size(layers=4, width=128, heads=4, batch=8, sequence=64, vocabulary=BYTES),
        "mini": Size(layers=6, width=256, heads=8, batch=8, sequence=64, vocabulary=BYTES),
        "small": Size(layers=12, width=768, heads=12, batch=8, sequence=512, vocabulary=_BPE),
        "medium": Size(layers=24, width=1024, heads=16, batch=8, sequence=512, vocabulary=_BPE),
        "large": Size(layers=36, width=1280, heads=20, batch=8, sequence=512, vocabulary=_BPE),
        "xl": Size(layers=48, width=1600, heads=25, batch=8, sequence=512, vocabulary=_BPE),
    },
)
