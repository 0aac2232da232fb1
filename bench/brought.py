"""What the user's function returns, as a workload: a Workload, a transformers Trainer, a LightningModule with its data,
a model with a loader and a loss, or a model alone.

The function is called wherever a model is built: it makes a fresh one each time, on whatever device is asked for.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import _get_current_dispatch_mode

from bench.clipping import clip
from bench.loader import with_loader
from bench.workload import Batch, Workload, output_loss, scalar_of

TEMPLATE = """\
from bench.workload import Workload

def workload():
    return Workload(
        model=build_model,             # a function that returns a torch module
        data=build_dataset,            # a function that returns a map-style or iterable dataset, or a DataLoader
        loss=lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
        batch=32,                      # samples of one optimizer update
    )"""
"""What to write if nothing can be guessed."""

KINDS = (
    "a torch module, a Workload, a transformers Trainer, (LightningModule, its data module or loader) or "
    "(model, loader, loss)"
)


def as_workload(made: object, function: Callable[[], Any], batch: int | None) -> Workload | None:
    """The workload made of what `function` has returned. None for a model alone, which is then trained on text. Raises
    ValueError for anything else."""
    if isinstance(made, Workload):
        return with_loader(made, batch)
    built = Built(function, made)
    if _is(made, "Trainer", "transformers"):
        return with_loader(_of_trainer(made, built), batch)
    if isinstance(made, tuple) and len(made) == 2 and _is(made[0], "LightningModule", "lightning", "pytorch_lightning"):
        return with_loader(_of_lightning(made[0], built), batch)
    if isinstance(made, tuple) and len(made) == 3 and isinstance(made[0], nn.Module):
        loss = _criterion(made[2])
        return with_loader(Workload(model=lambda: built.anew()[0], data=lambda: built.latest[1], loss=loss), batch)
    if isinstance(made, nn.Module):
        return None
    raise ValueError(f"it returned {_shown(made)}: return {KINDS}")


class Built:
    """What the user's function has built. Model, loss, data and optimizer are all parts of `latest`."""

    def __init__(self, function: Callable[[], Any], made: Any) -> None:
        self._function, self._is_unused = function, True
        self.latest = made

    def anew(self) -> Any:
        """A fresh object, whose model is trained next. The first one is used if nobody has had it yet and it is needed
        where it was built: on the CPU, with memory."""
        elsewhere = _get_current_dispatch_mode() is not None or torch.get_default_device().type != "cpu"
        if elsewhere or not self._is_unused:
            self.latest = self._function()
        self._is_unused = False
        return self.latest


def _shown(made: object) -> str:
    if not isinstance(made, tuple):
        return type(made).__name__
    return f"({', '.join(type(item).__name__ for item in made)})"


def _is(made: object, name: str, *packages: str) -> bool:
    """Whether an object is of that class, by name: importing a library that the user does not use takes seconds."""
    return any(kind.__name__ == name and kind.__module__.partition(".")[0] in packages for kind in type(made).__mro__)


def _criterion(loss: Any) -> Callable[[nn.Module, Batch], Any]:
    """The loss as a function of the model and a batch. Torch's own losses, modules and functions, compare an output
    with a target: the second of a batch's two parts."""
    is_torch = isinstance(loss, nn.Module) or str(getattr(loss, "__module__", "")).startswith("torch")
    if not is_torch:
        return loss  # type: ignore[no-any-return]
    return functools.partial(_compared, loss)


def _compared(criterion: Callable[[Any, Any], Tensor], model: nn.Module, batch: Batch) -> Tensor:
    inputs, targets = batch
    return criterion(model(inputs), targets)


def _of_trainer(trainer: Any, built: Built) -> Workload:
    """What `trainer.train()` does in an update: its data, collator, batch size, accumulation, loss, optimizer and
    clipping. Number formats, compilation, ranks and data loading are left to techniques, and the learning rate keeps
    its initial value."""
    from transformers import Trainer

    args = trainer.args
    if trainer.train_dataset is None:
        raise ValueError("the Trainer has no train_dataset: give it one")
    is_plain = (
        type(trainer).compute_loss is Trainer.compute_loss
        and trainer.label_smoother is None
        and trainer.compute_loss_func is None
    )

    def data() -> Any:
        # Accelerate would split the batches over the ranks, which is done here already.
        accelerator = built.latest.accelerator
        accelerator.prepare = lambda loader, **_: loader
        try:
            return built.latest.get_train_dataloader()
        finally:
            del accelerator.prepare

    def loss(model: nn.Module, batch: Batch) -> Any:
        return built.latest.compute_loss(model, batch)

    def optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
        made = _on(parameters, built.latest.create_optimizer())
        if args.max_grad_norm:
            made.register_step_pre_hook(lambda optimizer, *_: clip(optimizer, largest_norm=args.max_grad_norm))
        return made

    return Workload(
        model=lambda: built.anew().model,
        data=data,
        loss=output_loss if is_plain else loss,
        batch=args.train_batch_size * args.gradient_accumulation_steps,
        accumulate=args.gradient_accumulation_steps,
        learning_rate=args.learning_rate,
        optimizer=optimizer,
        find_unused_parameters=bool(args.ddp_find_unused_parameters),
    )


def _on(parameters: Iterable[nn.Parameter], own: Optimizer) -> Optimizer:
    """The optimizer itself if these are its parameters. Otherwise one of its kind for these, with each parameter's
    options: techniques shard parameters, freeze some and add others."""
    listed: list[Any] = list(parameters)
    groups = listed if listed and isinstance(listed[0], dict) else [{"params": listed}]
    asked = [item for group in groups for item in group["params"]]
    options = {
        id(item): {name: value for name, value in group.items() if name != "params"}
        for group in own.param_groups
        for item in group["params"]
    }
    if len(groups) == 1 and {id(item) for item in asked} == set(options):
        return own
    made = [
        {**own.defaults, **options.get(id(item), {}), **group, "params": [item]}
        for group in groups
        for item in group["params"]
    ]
    return type(own)(_joined(made))  # type: ignore[call-arg]  # every optimizer takes groups, with all they need


def _joined(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of one parameter each, merged into one group per set of options."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        key = repr({name: value for name, value in group.items() if name != "params"})
        found.setdefault(key, {**group, "params": []})["params"] += group["params"]
    return list(found.values())


def _of_lightning(module: Any, built: Built) -> Workload:
    """The module's `training_step` on the batches of its data, with the optimizer of `configure_optimizers`. Hooks that
    only Lightning's own Trainer calls are not called."""
    if not getattr(module, "automatic_optimization", True):
        raise ValueError(f"{type(module).__name__} optimizes by hand (automatic_optimization is False): {_INSTEAD}")
    return Workload(
        model=lambda: built.anew()[0],
        data=lambda: _train_loader(built.latest[1]),
        loss=_training_step,
        learning_rate=_only_optimizer(module).param_groups[0]["lr"],
        optimizer=lambda parameters: _on(parameters, _only_optimizer(built.latest[0])),
    )


_INSTEAD = f"return a Workload instead, as in\n\n{TEMPLATE}"


def _training_step(model: nn.Module, batch: Batch) -> Any:
    step: Any = model.training_step
    # As in Lightning, a step that takes the number of the batch is given it.
    kinds = [item.kind for item in inspect.signature(step).parameters.values()]
    positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) + kinds.count(inspect.Parameter.POSITIONAL_ONLY)
    return step(batch, 0) if positional > 1 or inspect.Parameter.VAR_POSITIONAL in kinds else step(batch)


def _train_loader(data: Any) -> Any:
    """The loader of a data module, or the data itself if it is a loader already."""
    if not hasattr(data, "train_dataloader"):
        return data
    data.prepare_data()
    data.setup("fit")
    return data.train_dataloader()


def _only_optimizer(module: Any) -> Optimizer:
    """The optimizer that `configure_optimizers` returns, in any of Lightning's forms. Raises ValueError unless there is
    exactly one."""
    found = module.configure_optimizers()
    if isinstance(found, dict):
        found = found["optimizer"]
    if isinstance(found, tuple | list):
        # Optimizers and schedulers, or optimizers alone.
        listed = found[0] if found and isinstance(found[0], list) else found
        if len(listed) != 1:
            raise ValueError(f"{type(module).__name__} has {len(listed)} optimizers; one can be measured: {_INSTEAD}")
        found = listed[0]
    if not isinstance(found, Optimizer):
        raise ValueError(f"{type(module).__name__}.configure_optimizers returns no optimizer: {_INSTEAD}")
    return found


def takes_text(model: nn.Module) -> Callable[[nn.Module, Batch], Any] | None:
    """How a model alone, given text, computes its loss: like transformers' models, or like nanoGPT's `forward(idx,
    targets)`, which returns logits and loss. None if it cannot be guessed."""
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values())
    if "input_ids" in parameters and ("labels" in parameters or takes_any):
        return output_loss
    names = list(parameters)
    if len(names) > 1 and names[1] in ("targets", "target", "labels", "y"):
        return _next_token_loss
    return output_loss if takes_any else None


def _next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    return scalar_of(model(batch["input_ids"], batch["labels"]))
