"""Setting the dropout probability of a model."""

from __future__ import annotations

from torch import nn

NAMES = ("dropout", "attention_dropout")
"""The attributes in which transformers' attention layers keep their dropout probability as a number."""


def set_dropout(model: nn.Module, probability: float) -> bool:
    """Set this probability in every dropout layer, and in every attention layer that keeps its own as a number. Returns
    whether there is any.

    Dropout that other modules call as a function cannot be reached.
    """
    found = False
    for module in model.modules():
        own = ("p",) if isinstance(module, nn.modules.dropout._DropoutNd) else NAMES
        for name in own:
            if isinstance(getattr(module, name, None), float):
                found = True
                setattr(module, name, probability)
    return found
