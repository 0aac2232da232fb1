"""Vision transformer, image classification (Dosovitskiy et al. 2020, arXiv:2010.11929). base and large are as
published, small as in Touvron et al. 2020 (arXiv:2012.12877); nano, tiny and mini are ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.models._architecture import untrained
from bench.models._generated import Generated, Images
from bench.workload import Dimensions, Family


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size(Dimensions):
    """`image` and `patch` are sides in pixels."""

    image: int
    patch: int
    classes: int


def _config(size: _Size) -> dict[str, Any]:
    return {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.width,
        "image_size": size.image,
        "patch_size": size.patch,
        "num_labels": size.classes,
    }


FAMILY = Family(
    name="vit",
    caption="Vision transformer, image classifier",
    model=untrained("ViTForImageClassification", _config),
    samples=lambda size: Generated(Images(size.image, size.classes)),
    sizes={
        "nano": _Size(layers=2, width=64, heads=2, batch=8, image=32, patch=4, classes=10),
        "tiny": _Size(layers=4, width=128, heads=4, batch=8, image=32, patch=4, classes=10),
        "mini": _Size(layers=6, width=256, heads=8, batch=8, image=32, patch=4, classes=100),
        "small": _Size(layers=12, width=384, heads=6, batch=16, image=224, patch=16, classes=1000),
        "base": _Size(layers=12, width=768, heads=12, batch=16, image=224, patch=16, classes=1000),
        "large": _Size(layers=24, width=1024, heads=16, batch=16, image=224, patch=16, classes=1000),
    },
)
