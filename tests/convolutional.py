"""A small convolutional language model, as a user would provide one: its step takes some milliseconds on a CPU."""

from __future__ import annotations

from types import SimpleNamespace

from torch import Tensor, nn

WIDTH, LAYERS, KERNEL, VOCABULARY = 48, 3, 5, 260


class ConvolutionalLM(nn.Module):
    """Causal convolutions over embedded bytes; predicts the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, KERNEL) for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: Tensor, labels: Tensor) -> SimpleNamespace:
        hidden = self.embedding(input_ids).transpose(1, 2)
        for layer in self.layers:
            hidden = hidden + nn.functional.gelu(layer(nn.functional.pad(hidden, (KERNEL - 1, 0))))
        logits = self.head(hidden.transpose(1, 2))[:, :-1]
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()))


def make_model() -> nn.Module:
    return ConvolutionalLM()
