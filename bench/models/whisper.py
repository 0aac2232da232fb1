"""Whisper, speech recognition by an encoder and a decoder (Radford et al. 2022, arXiv:2212.04356). tiny, base and small
are as published, on 30 s of speech; nano is ours, on 1 s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.models._architecture import untrained
from bench.models._generated import Generated, Speech
from bench.workload import Dimensions, Family

BINS = 80
"""Mel bins per frame. A second has 100 frames, and the encoder sees half as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size(Dimensions):
    """`frames` per sample, and `tokens` to be recognised in them."""

    frames: int
    tokens: int
    vocabulary: int


def _config(size: _Size) -> dict[str, Any]:
    return {
        "vocab_size": size.vocabulary,
        "num_mel_bins": BINS,
        "d_model": size.width,
        "encoder_layers": size.layers,
        "decoder_layers": size.layers,
        "encoder_attention_heads": size.heads,
        "decoder_attention_heads": size.heads,
        "encoder_ffn_dim": 4 * size.width,
        "decoder_ffn_dim": 4 * size.width,
        "max_source_positions": size.frames // 2,
        "max_target_positions": 448,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 3,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
        "use_cache": False,
    }


FAMILY = Family(
    name="whisper",
    caption="Whisper, speech recognition",
    model=untrained("WhisperForConditionalGeneration", _config),
    samples=lambda size: Generated(Speech(BINS, size.frames, size.tokens, size.vocabulary)),
    sizes={
        "nano": _Size(layers=2, width=64, heads=2, batch=8, frames=100, tokens=16, vocabulary=260),
        "tiny": _Size(layers=4, width=384, heads=6, batch=8, frames=3000, tokens=128, vocabulary=51865),
        "base": _Size(layers=6, width=512, heads=8, batch=8, frames=3000, tokens=128, vocabulary=51865),
        "small": _Size(layers=12, width=768, heads=12, batch=8, frames=3000, tokens=128, vocabulary=51865),
    },
)
