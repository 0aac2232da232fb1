"""ResNet, image classification (He et al. 2015, arXiv:1512.03385). 18 is as published; nano and tiny are ours.

`layers` is the number of blocks in each of the four stages, `width` the width of the first stage; each stage is twice
as wide as the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.models._architecture import untrained
from bench.models._generated import Generated, Images
from bench.workload import Dimensions, Family


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size(Dimensions):
    """`image` is the side in pixels."""

    image: int
    classes: int


def _config(size: _Size) -> dict[str, Any]:
    return {
        "embedding_size": size.width,
        "hidden_sizes": [size.width * 2**stage for stage in range(4)],
        "depths": [size.layers] * 4,
        "layer_type": "basic",
        "num_labels": size.classes,
    }


FAMILY = Family(
    name="resnet",
    caption="ResNet, image classifier",
    model=untrained("ResNetForImageClassification", _config),
    samples=lambda size: Generated(Images(size.image, size.classes)),
    sizes={
        "nano": _Size(layers=1, width=16, heads=1, batch=8, image=32, classes=10),
        "tiny": _Size(layers=2, width=32, heads=1, batch=8, image=64, classes=10),
        "18": _Size(layers=2, width=64, heads=1, batch=16, image=224, classes=1000),
    },
)
