"""A workload's model in a script."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import pretrained
from bench.models._architecture import Untrained
from bench.script.layers import Layers, layers_of
from bench.script.text import call, literal, named
from bench.spec import WorkloadSpec
from bench.workload import Workload, output_loss


class Unwritten(Exception):
    """There is no script for this; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCode:
    """The model in a script. `lines` make `model`, and `dropout` are those that switch off the dropout of the module
    `module`."""

    imports: tuple[str, ...]
    lines: tuple[str, ...]
    layers: Layers
    dropout: tuple[str, ...]


def model_code(workload: Workload, spec: WorkloadSpec, device: str) -> ModelCode:
    """Write a workload's model. Raises Unwritten unless it is a transformers model that trains on its own loss."""
    with torch.device("meta"):
        model = workload.model()
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel) or workload.loss is not output_loss:
        raise Unwritten(f"{spec.model} trains by a loss or a loop of its own: take the lines below over into that")
    imports, lines = _built(workload.model, spec)
    if device != "cpu":
        # Draw the weights on the device where they will be.
        lines = [*lines[:-1], "with torch.device(DEVICE):", f"    {lines[-1]}"] if "(config)" in lines[-1] else lines
    family = workload.family and workload.family.model
    attributes = family.attributes if isinstance(family, Untrained) else {}
    return ModelCode(
        imports=imports,
        lines=(*lines, *(f"model.{name} = {literal(value)}" for name, value in attributes.items())),
        layers=layers_of(model),
        dropout=_dropout(model),
    )


def _built(make: Callable[[], nn.Module], spec: WorkloadSpec) -> tuple[tuple[str, ...], list[str]]:
    """The imports, and lines of which the last makes `model`."""
    function = make.func if isinstance(make, functools.partial) else make
    arguments = make.args if isinstance(make, functools.partial) else ()
    if isinstance(function, Untrained):
        return _of_a_family(function, arguments[0])
    if function is pretrained.build:
        return _of_a_folder(*arguments)
    file, found, name = spec.model.partition(".py:")
    if not found:
        raise Unwritten(f"how {spec.model} is built is known to its plugin alone")
    path = Path(f"{file}.py").resolve()
    lines = [
        f"sys.path.append({literal(str(path.parent))})",
        f"from {path.stem} import {name}",
        "",
        f"model = {name}()",
    ]
    return ("import sys",), lines


def _of_a_family(family: Untrained, size: Any) -> tuple[tuple[str, ...], list[str]]:
    import transformers

    config = getattr(transformers, family.name).config_class.__name__
    lines = call(f"config = {config}(", named(family.config(size)))
    return (f"from transformers import {config}, {family.name}",), [*lines, f"model = {family.name}(config)"]


def _of_a_folder(found: pretrained.Pretrained, kind: Any) -> tuple[tuple[str, ...], list[str]]:
    folder = literal(str(found.folder.resolve()))
    if any(found.folder.glob("*.safetensors")):
        lines = call(f"model = {kind.__name__}.from_pretrained(", [folder, "dtype=torch.float32"])
        return (f"from transformers import {kind.__name__}",), [" ".join(lines)] if len(lines) == 1 else lines
    lines = [f"config = AutoConfig.from_pretrained({folder})", f"model = {kind.__name__}.from_config(config)"]
    return (f"from transformers import AutoConfig, {kind.__name__}",), lines


def _dropout(model: nn.Module) -> tuple[str, ...]:
    """What a replay does before the first updates: harness/evidence/replay.py."""
    lines: list[str] = []
    if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p for module in model.modules()):
        lines += ["if isinstance(module, torch.nn.Dropout):", "    module.p = 0.0"]
    for name in ("dropout", "attention_dropout"):
        if any(isinstance(found := getattr(module, name, None), float) and found for module in model.modules()):
            lines += [f'if isinstance(getattr(module, "{name}", None), float):', f"    module.{name} = 0.0"]
    return tuple(lines)
