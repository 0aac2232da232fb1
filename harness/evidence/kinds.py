"""The kinds of operators that a step is told apart by. Standard library only: reports are made without torch."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Of operators, by what limits them. What an optimizer calls is its own, and what no operator covers is Python's,
    autograd's or a wait."""

    PRODUCTS = "products"
    ATTENTION = "attention"
    NORMALISATION = "normalisation"
    LOOKUPS = "lookups, softmax and loss"
    ELEMENTWISE = "elementwise and others"
    COPIES = "copies"
    OPTIMIZER = "optimizer"
    COMPILED = "compiled code"
    BETWEEN = "between operators"
