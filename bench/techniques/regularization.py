"""What keeps a model from learning its samples by heart."""

from __future__ import annotations

from dataclasses import replace

from bench.dropout import set_dropout
from bench.registry import Change, Stage, technique
from bench.script.code import Code
from bench.setup import TrainingSetup, Unsupported

SET_DROPOUT = """\
def set_dropout(model, probability):
    \"""Of every dropout layer, and of every attention layer that keeps its own as a number.\"""
    for module in model.modules():
        is_layer = isinstance(module, torch.nn.modules.dropout._DropoutNd)
        for name in ("p",) if is_layer else ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, probability)"""


@technique(
    stage=Stage.MODEL,
    changes={Change.OBJECTIVE},
    values=(0, 10, 20),
    source="https://jmlr.org/papers/v15/srivastava14a.html",
    # A script that compares its first losses with those of the arm takes them without dropout, as the arm did.
    code=Code(functions=(SET_DROPOUT,), model=("set_dropout(model, 0.0 if check else {value} / 100)",)),
)
def dropout(setup: TrainingSetup, percent: int) -> TrainingSetup:
    """The model's dropout layers set {value} % of their inputs to 0 in training."""
    if not set_dropout(setup.model, percent / 100):
        raise Unsupported(f"dropout_{percent} needs a model that has dropout layers; {setup.workload.name} has none")
    return setup


@technique(
    stage=Stage.STEP,
    changes={Change.SCHEDULE},
    values=(3,),
    source="https://doi.org/10.1007/3-540-49430-8_3",
)
def early_stopping(setup: TrainingSetup, evaluations: int) -> TrainingSetup:
    """Training ends once {value} evaluations in a row have found no lower held-out loss; its steps are the baseline's.

    `trainpace worth` evaluates, and tells what that saves and what it costs. A day has `--patience`.
    """
    return replace(setup, patience=evaluations)
