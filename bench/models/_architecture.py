"""Models of transformers by the names of their classes; the library is imported when the first is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

Config = Callable[[Any], dict[str, Any]]
"""From a size to what the configuration of the class is made of."""


def untrained(name: str, config: Config) -> Callable[[Any], nn.Module]:
    """What builds freshly initialised models of this class."""
    return lambda size: _build(name, config(size))


def untrained_classifier(name: str, config: Config) -> Callable[[Any, int], nn.Module]:
    """What builds freshly initialised sequence classifiers of this class for a number of labels."""
    return lambda size, labels: _build(name, config(size) | {"num_labels": labels})


def _build(name: str, config: dict[str, Any]) -> nn.Module:
    import transformers

    kind = getattr(transformers, name)
    model: nn.Module = kind(kind.config_class(**config))
    return model
