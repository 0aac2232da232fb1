"""Models of transformers, by the names of their classes. The library is imported when the first one is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Config = Callable[[Any], dict[str, Any]]
"""From a size to the arguments of the class's configuration."""


@dataclass(frozen=True, slots=True)
class Untrained:
    """Builds freshly initialised models of the class `name`, and sets `attributes` on them. `to_count` modifies models
    on the meta device, where only shapes and operation counts matter."""

    name: str
    config: Config
    attributes: Mapping[str, Any]
    to_count: Callable[[Any], object] | None

    def __call__(self, size: Any) -> nn.Module:
        model = _build(self.name, self.config(size))
        for name, value in self.attributes.items():
            setattr(model, name, value)
        if self.to_count and torch.get_default_device().type == "meta":
            self.to_count(model)
        return model


def untrained(
    name: str, config: Config, *, to_count: Callable[[Any], object] | None = None, **attributes: Any
) -> Untrained:
    """Returns a builder of freshly initialised models of this class, with these attributes set."""
    return Untrained(name, config, attributes, to_count)


def untrained_classifier(name: str, config: Config) -> Callable[[Any, int], nn.Module]:
    """Returns a builder of freshly initialised sequence classifiers of this class, for a given number of labels."""
    return lambda size, labels: _build(name, config(size) | {"num_labels": labels})


def _build(name: str, config: dict[str, Any]) -> nn.Module:
    import transformers

    kind = getattr(transformers, name)
    model: nn.Module = kind(kind.config_class(**config))
    return model
