"""The kinds of operators into which a step is divided. Standard library only: reports are made without torch."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Kinds of operators, by what limits them. What an optimizer calls is a kind of its own; what no operator covers is
    time in Python or autograd, or a wait."""

    PRODUCTS = "products"
    ATTENTION = "attention"
    NORMALISATION = "normalisation"
    LOOKUPS = "lookups, softmax and loss"
    ELEMENTWISE = "elementwise and others"
    COPIES = "copies"
    OPTIMIZER = "optimizer"
    COMPILED = "compiled code"
    BETWEEN = "between operators"
