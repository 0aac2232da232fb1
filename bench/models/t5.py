"""T5, an encoder and a decoder (Raffel et al. 2019, arXiv:1910.10683). small (60M parameters) to large are as
published.

The second half of a sequence is predicted from the first: its tokens are split between the encoder and the decoder.
`layers` is the number of each one's layers; dropout is 0.1, as published. Nano, tiny and mini are ours, and read bytes.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from bench.corpus import BYTES, bpe
from bench.models._architecture import untrained, untrained_classifier
from bench.samples import continuation
from bench.workload import Family, Size

POSITIONS = 1024
"""512 on each side, as published. Positions are relative, so the model itself has no limit."""
_BPE = bpe(32128)


def _config(size: Size) -> dict[str, Any]:
    return {
        "vocab_size": size.vocabulary.size,
        "d_model": size.width,
        "d_kv": size.width // size.heads,
        "d_ff": 4 * size.width,
        "num_layers": size.layers,
        "num_heads": size.heads,
        "pad_token_id": size.vocabulary.pad,
        "decoder_start_token_id": size.vocabulary.pad,
        "eos_token_id": size.vocabulary.end,
        "use_cache": False,
    }


def classifier(size: Size, labels: int) -> nn.Module:
    """The same base with a head that classifies a sequence by the decoder's output at its end token."""
    model = untrained_classifier("T5ForSequenceClassification", _config)(size, labels)
    model.register_forward_pre_hook(_end_each_row, with_kwargs=True)
    return model


def _end_each_row(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put the end token in place of each row's last token, and nowhere else: the model looks for exactly one."""
    ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
    end, pad = model.config.eos_token_id, model.config.pad_token_id
    last = ids.new_full((len(ids), 1), ids.shape[1] - 1) if mask is None else mask.sum(1, keepdim=True) - 1
    return args, kwargs | {"input_ids": ids.masked_fill(ids == end, pad).scatter(1, last, end)}


FAMILY = Family(
    name="t5",
    caption="T5, encoder and decoder",
    positions=POSITIONS,
    model=untrained("T5ForConditionalGeneration", _config),
    classifier=classifier,
    objective=lambda size: continuation,
    sizes={
        "nano": Size(layers=2, width=64, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "tiny": Size(layers=2, width=128, heads=2, batch=8, sequence=128, vocabulary=BYTES),
        "mini": Size(layers=4, width=256, heads=4, batch=8, sequence=128, vocabulary=BYTES),
        "small": Size(layers=6, width=512, heads=8, batch=8, sequence=256, vocabulary=_BPE),
        "base": Size(layers=12, width=768, heads=12, batch=8, sequence=256, vocabulary=_BPE),
        "large": Size(layers=24, width=1024, heads=16, batch=8, sequence=256, vocabulary=_BPE),
    },
)
