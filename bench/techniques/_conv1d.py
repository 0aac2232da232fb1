"""Which layers of a model are linear, and transformers' Conv1D, a linear layer that libraries do not see as one.

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
    """The nn.Linear and Conv1D layers inside the model by name, without the output head.

    Low precision harms convergence most in the head, and its weight is often the input embedding too. Subclasses are
    left out: they compute something of their own.
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
    """Replace every Conv1D inside the model, in place, by the nn.Linear that computes the same."""
    from transformers.pytorch_utils import Conv1D

    made: dict[nn.Module, nn.Linear] = {}
    # One layer may sit in several places; it stays one layer.
    for path, layer in list(model.named_modules(remove_duplicate=False)):
        if path and type(layer) is Conv1D:
            model.set_submodule(path, made.setdefault(layer, _linear(layer)))


def _linear(layer: nn.Module) -> nn.Linear:
    """The same map with the weight transposed: a Conv1D holds (inputs, outputs), nn.Linear (outputs, inputs)."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    # On the meta device no initial weights are drawn, so the random state stays the baseline's.
    inputs, outputs = weight.shape
    linear = nn.Linear(inputs, outputs, device="meta").train(layer.training)
    linear.weight = nn.Parameter(weight.detach().t().contiguous(), requires_grad=weight.requires_grad)
    linear.bias = bias
    return linear
