"""Finds a model's linear layers, including transformers' Conv1D, which libraries do not recognise as one.

LINEAR_LAYERS is how a script finds them once there is no Conv1D. Registers nothing: the techniques that rewrite linear
layers share it.
"""

from __future__ import annotations

from torch import nn

LINEAR_LAYERS = (
    "layers = {layer for layer in model.modules() if type(layer) is torch.nn.Linear}",
    "layers.discard(model.get_output_embeddings())",
)


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The nn.Linear and Conv1D layers in the model, by name, without the output head.

    In the head, low precision harms convergence most, and its weight is often the input embedding too. Subclasses are
    left out: they compute something else.
    """
    from transformers.pytorch_utils import Conv1D

    find_head = getattr(model, "get_output_embeddings", None)
    head = find_head() if find_head else None
    return {
        name: module
        for name, module in model.named_modules()
        if name and type(module) in (nn.Linear, Conv1D) and module is not head
    }


def conv1d_to_linear(model: nn.Module) -> None:
    """Replace every Conv1D in the model, in place, with the nn.Linear that computes the same."""
    from transformers.pytorch_utils import Conv1D

    made: dict[nn.Module, nn.Linear] = {}
    # A layer may be in several places, and must stay one layer.
    for path, layer in list(model.named_modules(remove_duplicate=False)):
        if path and type(layer) is Conv1D:
            model.set_submodule(path, made.setdefault(layer, _linear(layer)))


def _linear(layer: nn.Module) -> nn.Linear:
    """The same map with a transposed weight: a Conv1D holds (inputs, outputs), nn.Linear (outputs, inputs)."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    # On the meta device no initial weights are drawn, so the random state stays that of the baseline.
    inputs, outputs = weight.shape
    linear = nn.Linear(inputs, outputs, device="meta").train(layer.training)
    linear.weight = nn.Parameter(weight.detach().t().contiguous(), requires_grad=weight.requires_grad)
    linear.bias = bias
    return linear
