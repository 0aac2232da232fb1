"""A language model with only three parameter shapes: what is compiled for each shape is compiled three times."""

from __future__ import annotations

from types import SimpleNamespace

from torch import Tensor, nn

WIDTH, VOCABULARY = 64, 260

MODEL = f"{__file__}:make_model"
"""Its name for `--model`."""


class FewShapes(nn.Module):
    """Predicts the next byte from the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        self.layer = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor, labels: Tensor) -> SimpleNamespace:
        hidden = self.embedding(input_ids)
        logits = self.head(hidden + nn.functional.gelu(self.layer(self.norm(hidden))))[:, :-1]
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()))


def make_model() -> nn.Module:
    return FewShapes()
