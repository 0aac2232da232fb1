"""How much of what passes through a model is set to 0 while it trains."""

from __future__ import annotations

from torch import nn

NAMES = ("dropout", "attention_dropout")
"""What transformers' attention layers call the probability that they keep as a number."""


def set_dropout(model: nn.Module, probability: float) -> bool:
    """Give every dropout layer, and every attention layer that keeps its own as a number, this probability; and whether
    there is any.

    Dropout that any other module calls as a function is out of reach.
    """
    found = False
    for module in model.modules():
        own = ("p",) if isinstance(module, nn.modules.dropout._DropoutNd) else NAMES
        for name in own:
            if isinstance(getattr(module, name, None), float):
                found = True
                setattr(module, name, probability)
    return found
