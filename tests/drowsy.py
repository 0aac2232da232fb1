"""A small model that sleeps in its forward pass, so that waking it up is a certain speed-up."""

from __future__ import annotations

import time
from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel


class Drowsy(GPT2LMHeadModel):  # type: ignore[misc]  # transformers has no types here
    sleep_s = 0.02

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(self.sleep_s)
        return super().forward(*args, **kwargs)


def model() -> Drowsy:
    return Drowsy(GPT2Config(vocab_size=260, n_positions=64, n_embd=32, n_layer=2, n_head=2))
