"""Optimizers from torch.optim and pytorch_optimizer, at the workload's learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from bench.host import not_the_baseline_on, package
from bench.registry import Change, Stage, technique
from bench.script.code import Code, Options
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._adamw import by_other_means
from bench.techniques._joint import Group, Joint, as_groups, part_of

OPTIM_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.optim"
DECAY = 0.01
"""Weight decay of the rules that decay as AdamW does: the baseline's, where their libraries have other defaults."""

adamw_by_other_means = partial(technique, stage=Stage.OPTIMIZER, slot="optimizer")
other_rule = partial(technique, stage=Stage.OPTIMIZER, slot="optimizer", changes={Change.UPDATE_RULE})
library_rule = partial(other_rule, needs=[package("pytorch_optimizer", "pytorch-optimizer")])


def _written(kind: str, options: str = "", trainer: Options | None = None) -> Code:
    """An optimizer's line in a script."""
    given = ", ".join(filter(None, ("{parameters}", "lr=LEARNING_RATE", options)))
    library = kind.partition(".")[0]
    imports = () if library == "torch" else (f"import {library}",)
    return Code(imports=imports, optimizer=(f"optimizer = {kind}({given})",), trainer=trainer)


def _optimizer(setup: TrainingSetup, kind: Callable[..., Optimizer], **options: Any) -> TrainingSetup:
    return replace(setup, optimizer=partial(kind, lr=setup.workload.learning_rate, **options))


def _of_whole_tensors(name: str, setup: TrainingSetup) -> TrainingSetup:
    """The setup whose optimizer refuses shards, on whose norms or eigenbases its library fails."""
    make = setup.optimizer

    def of_whole(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = make(parameters)
        if any(isinstance(item, DTensor) for group in optimizer.param_groups for item in group["params"]):
            raise Unsupported(f"{name} needs whole parameter tensors; these are sharded over ranks")
        return optimizer

    return replace(setup, optimizer=of_whole)


@other_rule(
    source=f"{OPTIM_DOCS}.SGD.html",
    code=_written("torch.optim.SGD"),
)
def sgd(setup: TrainingSetup) -> TrainingSetup:
    """Plain SGD: no state at all."""
    return _optimizer(setup, torch.optim.SGD)


@other_rule(
    source=f"{OPTIM_DOCS}.SGD.html",
    code=_written("torch.optim.SGD", "momentum=0.9"),
)
def sgd_momentum(setup: TrainingSetup) -> TrainingSetup:
    """SGD with momentum 0.9: one state tensor per parameter."""
    return _optimizer(setup, torch.optim.SGD, momentum=0.9)


@other_rule(
    source="https://proceedings.mlr.press/v28/sutskever13.html",
    code=_written("torch.optim.SGD", "momentum=0.9, nesterov=True"),
)
def sgd_nesterov(setup: TrainingSetup) -> TrainingSetup:
    """SGD with Nesterov's momentum 0.9: the gradient's step starts from where the momentum leads."""
    return _optimizer(setup, torch.optim.SGD, momentum=0.9, nesterov=True)


@other_rule(
    source="https://arxiv.org/abs/1412.6980",
    code=_written("torch.optim.Adam"),
)
def adam(setup: TrainingSetup) -> TrainingSetup:
    """Adam without weight decay, PyTorch's default implementation."""
    return _optimizer(setup, torch.optim.Adam)


# torch.optim's _default_to_fused_or_foreach: batched if all parameters are on a GPU, sharded ones included; never on a
# CPU; fused nowhere.
@adamw_by_other_means(
    needs=[not_the_baseline_on("cpu", "torch updates one parameter after the other by default")],
    source=f"{OPTIM_DOCS}.AdamW.html",
    code=_written("torch.optim.AdamW", "foreach=False"),
)
def adamw_loop(setup: TrainingSetup) -> TrainingSetup:
    """AdamW with its update in a Python loop, one parameter at a time."""
    return by_other_means(setup, "adamw_loop")


@adamw_by_other_means(
    needs=[not_the_baseline_on("cuda", "torch batches AdamW by default")],
    source=f"{OPTIM_DOCS}.AdamW.html",
    code=_written("torch.optim.AdamW", "foreach=True"),
)
def adamw_foreach(setup: TrainingSetup) -> TrainingSetup:
    """AdamW with its update batched over all parameters (foreach kernels)."""
    return by_other_means(setup, "adamw_foreach", foreach=True)


@adamw_by_other_means(
    source=f"{OPTIM_DOCS}.AdamW.html",
    code=_written("torch.optim.AdamW", "fused=True", trainer={"optim": "adamw_torch_fused"}),
)
def adamw_fused(setup: TrainingSetup) -> TrainingSetup:
    """AdamW with its whole update in one fused kernel."""
    if any(item.is_complex() for item in setup.model.parameters()):
        raise Unsupported("adamw_fused takes no complex weights, and this model has some: use adamw_foreach")
    return by_other_means(setup, "adamw_fused", fused=True)


@other_rule(
    source="https://arxiv.org/abs/1412.6980",
    code=_written("torch.optim.Adamax"),
)
def adamax(setup: TrainingSetup) -> TrainingSetup:
    """Adamax: Adam with the infinity norm in place of the second moment."""
    return _optimizer(setup, torch.optim.Adamax)


@other_rule(
    source=f"{OPTIM_DOCS}.NAdam.html",
    code=_written("torch.optim.NAdam"),
)
def nadam(setup: TrainingSetup) -> TrainingSetup:
    """NAdam: Adam with Nesterov's momentum."""
    return _optimizer(setup, torch.optim.NAdam)


@other_rule(
    source="https://arxiv.org/abs/1908.03265",
    code=_written("torch.optim.RAdam"),
)
def radam(setup: TrainingSetup) -> TrainingSetup:
    """RAdam: Adam that adapts its rates only once their variance is known; the first updates use only momentum."""
    return _optimizer(setup, torch.optim.RAdam)


@other_rule(
    source="https://arxiv.org/abs/1804.04235",
    code=_written("torch.optim.Adafactor"),
)
def adafactor(setup: TrainingSetup) -> TrainingSetup:
    """Adafactor: the second moment is factored into rows and columns to save memory."""
    return _of_whole_tensors("adafactor", _optimizer(setup, torch.optim.Adafactor))


@library_rule(
    source="https://arxiv.org/abs/1904.00962",
    code=_written("pytorch_optimizer.Lamb", f"weight_decay={DECAY}, adam_debias=True"),
)
def lamb(setup: TrainingSetup) -> TrainingSetup:
    """LAMB: each tensor's Adam update is scaled to the size of the tensor, for very large batches."""
    from pytorch_optimizer import Lamb

    # The library's bias correction, on by default, would make the first updates ten times as large as the rate says.
    return _of_whole_tensors("lamb", _optimizer(setup, Lamb, weight_decay=DECAY, adam_debias=True))


@library_rule(
    source="https://arxiv.org/abs/2302.06675",
    code=_written("pytorch_optimizer.Lion", f"weight_decay={DECAY}"),
)
def lion(setup: TrainingSetup) -> TrainingSetup:
    """Lion: the update is the sign of a momentum; one state tensor per parameter, where AdamW has two."""
    from pytorch_optimizer import Lion

    return _optimizer(setup, Lion, weight_decay=DECAY)


@library_rule(
    source="https://arxiv.org/abs/2409.11321",
    code=_written("pytorch_optimizer.SOAP", f"weight_decay={DECAY}"),
)
def soap(setup: TrainingSetup) -> TrainingSetup:
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner; the first update only sets that up."""
    from pytorch_optimizer import SOAP

    return _of_whole_tensors("soap", _optimizer(setup, SOAP, weight_decay=DECAY))


@library_rule(
    source="https://arxiv.org/abs/2405.15682",
    code=_written("pytorch_optimizer.ScheduleFreeAdamW", f"weight_decay={DECAY}"),
)
def schedule_free_adamw(setup: TrainingSetup) -> TrainingSetup:
    """Schedule-free AdamW: an average of the weights takes the place of a falling learning rate."""
    from pytorch_optimizer import ScheduleFreeAdamW

    # It starts in training mode: gradients are taken at its interpolated weights.
    return _optimizer(setup, ScheduleFreeAdamW, weight_decay=DECAY)


MUON_AND_ADAMW = f"""\
def muon_and_adamw(model):
    \"""Muon for the matrices of hidden layers; AdamW for embeddings, the head and vectors.\"""
    modules = [item for item in model.modules() if isinstance(item, torch.nn.Embedding)]
    for module in model.modules():
        if head := getattr(module, "get_output_embeddings", lambda: None)():
            modules.append(head)
    outer = {{id(x) for module in modules for x in module.parameters()}}
    hidden = [x for x in model.parameters() if x.dim() == 2 and id(x) not in outer]
    others = [x for x in model.parameters() if x.dim() != 2 or id(x) in outer]
    options = {{"weight_decay": {DECAY}, "adjust_lr_fn": "match_rms_adamw"}}
    muon = torch.optim.Muon(hidden, lr=LEARNING_RATE, **options)
    return muon, torch.optim.AdamW(others, lr=LEARNING_RATE)"""


@other_rule(
    source="https://arxiv.org/abs/2502.16982",
    code=Code(
        functions=(MUON_AND_ADAMW,),
        optimizer=("optimizers = muon_and_adamw(model)",),
        update=("for optimizer in optimizers:", "    optimizer.step()", "    optimizer.zero_grad()"),
    ),
)
def muon(setup: TrainingSetup) -> TrainingSetup:
    """Muon orthogonalizes the momentum of each hidden matrix; embeddings, output head and vectors stay with AdamW."""
    rate = setup.workload.learning_rate
    # Updates are scaled to the size of AdamW's, so that AdamW's rate and decay suit them.
    for_matrices = partial(torch.optim.Muon, lr=rate, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    for_the_rest = partial(torch.optim.AdamW, lr=rate)

    def make(parameters: Iterable[Tensor] | Iterable[Group]) -> Optimizer:
        outer = _embeddings_and_head(setup.model)
        matrices, rest = [], []
        for group in as_groups(parameters):
            hidden = {item: item.dim() == 2 and id(item) not in outer for item in group["params"]}
            matrices.append(part_of(group, (item for item in hidden if hidden[item])))
            rest.append(part_of(group, (item for item in hidden if not hidden[item])))
        split = ((for_matrices, matrices), (for_the_rest, rest))
        filled = [(kind, [group for group in groups if group["params"]]) for kind, groups in split]
        return Joint([kind(groups) for kind, groups in filled if groups])

    return replace(setup, optimizer=make)


def _embeddings_and_head(model: nn.Module) -> set[int]:
    """Identities of the parameters that turn tokens into vectors and back. Sharding replaces parameters: ask late."""
    modules = list(model.modules())
    outer: list[nn.Module] = [module for module in modules if isinstance(module, nn.Embedding)]
    finders = [find for module in modules if (find := getattr(module, "get_output_embeddings", None))]
    outer += [head for find in finders if isinstance(head := find(), nn.Module)]
    return {id(parameter) for module in outer for parameter in module.parameters()}
