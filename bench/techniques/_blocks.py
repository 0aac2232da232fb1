"""The stacks of transformer blocks in a model. Registers nothing: techniques that work layer by layer share it."""

from __future__ import annotations

from torch import nn


def stacks(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The outermost lists of blocks of one kind, by name: one in most models, two in an encoder-decoder."""
    found: dict[str, nn.ModuleList] = {}
    inside: set[nn.Module] = set()
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and module not in inside and len({type(block) for block in module}) == 1:
            found[path] = module
            inside.update(module.modules())
    return found


def blocks(model: nn.Module) -> list[nn.Module]:
    """Every block of every stack, in the order of the forward pass; one that is called twice is listed twice."""
    return [block for stack in stacks(model).values() for block in stack]
