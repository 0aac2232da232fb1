"""The whole script, and the equivalent settings for other trainers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.composition import compose
from bench.registry import Technique
from bench.script.code import PLAIN, Code, Elsewhere, together
from bench.script.data import data_code
from bench.script.layers import layers
from bench.script.model import ModelCode, Unwritten, model_code
from bench.script.text import call, fitted, imports, named
from bench.spec import Phase, WorkloadSpec
from bench.workload import Workload

TEMPLATES = Path(__file__).parent.parent / "templates"

LOSSES = 10
"""How many of a replay's losses the script compares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The script's text, and arrays by the names of the files that have to be beside it."""

    text: str
    files: Mapping[str, np.ndarray]


def script(
    workload: Workload,
    spec: WorkloadSpec,
    techniques: Sequence[str],
    *,
    device: str,
    seed: int,
    said: Sequence[str],
    losses: Sequence[float],
    tolerance: float,
    measured_rate: float | None = None,
) -> Script:
    """Write a script that trains this workload with this recipe. `said` are the lines of its docstring. The script
    checks that its first losses match `losses` within the relative `tolerance`, without dropout and at `measured_rate`
    if that differs from the workload's rate.

    Raises Unwritten, saying why, if there is no script.
    """
    import jinja2

    found = compose(techniques)
    codes = [(item, item.code) for item in found if item.code]
    unknown = [item.name for item in found if not item.code]
    if unknown:
        raise Unwritten(f"how {' and '.join(unknown)} is written by hand is not known here")
    if spec.phase is not Phase.PRETRAIN:
        raise Unwritten(f"there are scripts for pretraining alone, and this is {spec.phase}")
    for item, parts in codes:
        if beside := [other.name for other in found if {other.name, other.family} & parts.apart]:
            raise Unwritten(f"what {item.name} is beside {' and '.join(beside)} is not known here")
    model, data = model_code(workload, spec, device), data_code(workload)
    code = model.layers.written(together(tuple(parts for _, parts in codes)))
    if others := _at_the_update(code):
        own = next(item.name for item in found if item.code and item.code.update is not None)
        raise Unwritten(f"what {own} is beside {others} is not known here")
    source = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    copies = device != "cpu" or bool(code.number_format and data.has_floats)
    text = source.get_template("recipe.py.jinja").render(
        said=said,
        imports=imports(_imports(code, model, data.imports)),
        device=device,
        seed=seed,
        batch=workload.batch,
        sequence=data.sequence,
        learning_rate=workload.learning_rate,
        measured_rate=None if measured_rate == workload.learning_rate else measured_rate,
        losses="\n".join(call("LOSSES = [", [f"{loss:.4g}" for loss in losses[:LOSSES]], "]", indent=0)),
        tolerance=tolerance,
        model=model,
        data=data,
        code=code,
        copies=copies,
        # The thread that copies may not be the one that chose the device.
        place='f"{DEVICE}:{RANK}"' if code.ranks and device != "cpu" else "DEVICE",
        first=(*_ranks_meet(code, device), *code.first),
        scaler=("scaler = torch.amp.GradScaler(DEVICE)",) if code.scaler else (),
        loader=call("loader = DataLoader(", ["samples", "batch_sampler=shuffled(len(samples))", *named(code.loader)]),
        batches=_batches(code, copies),
        seen="over_ranks(loss)" if code.ranks else "loss.item()",
        step=_step(code),
    )
    return Script(text=fitted(text), files=data.files)


def _at_the_update(code: Code) -> str:
    """Names what the script does around the update that does not go with an update of the code's own; empty if there is
    no conflict. Code with several optimizers, or that steps while gradients are computed, has no single `optimizer`."""
    if code.update == PLAIN.update:
        return ""
    told = {
        "what clips gradients": code.gradients and not code.update,
        "a schedule": code.optimized,
        "a scaled loss": code.scaler,
        "parameters in groups": code.parameters != PLAIN.parameters,
    }
    return " and ".join(what for what, is_there in told.items() if is_there)


def _imports(code: Code, model: ModelCode, of_data: Sequence[str]) -> list[str]:
    needed = ["argparse", "itertools", "sys", "time"] + ["os"] * bool(code.ranks)
    needed += ["contextlib"] * (code.accumulate != 1 and "contextlib." in "".join(code.part))
    known = ["import torch", "import numpy as np", "from torch.utils.data import DataLoader"]
    return [*(f"import {name}" for name in needed), *known, *code.imports, *model.imports, *of_data]


def _ranks_meet(code: Code, device: str) -> tuple[str, ...]:
    if not code.ranks:
        return ()
    return ("torch.distributed.init_process_group()", *(["torch.cuda.set_device(RANK)"] if device != "cpu" else []))


def _batches(code: Code, copies: bool) -> str:
    batches = "on_device(loader)" if copies else "loader"
    return f"{code.feed}({batches})" if code.feed else batches


def _step(code: Code) -> list[str]:
    """One update, as lines in a loop over `batch`."""
    if code.accumulate == 1:
        lines = _pass("loss", "batch", "", code)
    else:
        within = _pass("part_loss", "part", " / PARTS", code)
        within = [*code.part, *(_indented(within) if code.part and code.part[-1].endswith(":") else within)]
        lines = ["loss = 0.0", "parts = parts_of(batch)", "for part in parts:"]
        lines += _indented([*within, "loss += part_loss.detach()"])
    update = code.update or ()
    if code.scaler:
        unscaled = ["scaler.unscale_(optimizer)"] if code.gradients else []
        return [
            *lines,
            *unscaled,
            *code.gradients,
            "scaler.step(optimizer)",
            "scaler.update()",
            "optimizer.zero_grad()",
            *code.updated,
        ]
    return [*lines, *code.gradients, *update, *code.updated]


def _pass(name: str, batch: str, share: str, code: Code) -> list[str]:
    """Forward and backward."""
    forward = f"{name} = model(**{batch}).loss{share}"
    lines = [f"with {', '.join(code.contexts)}:", *_indented([forward])] if code.contexts else [forward]
    lines += [line.replace("loss.", f"{name}.") if line.startswith("loss.") else line for line in code.loss]
    return [*lines, f"scaler.scale({name}).backward()" if code.scaler else f"{name}.backward()"]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def for_trainer(workload: Workload, techniques: Sequence[str]) -> Elsewhere:
    """The recipe as TrainingArguments of transformers: those of the plain workload, changed by the recipe."""
    plain: dict[str, Any] = {
        "learning_rate": workload.learning_rate,
        "weight_decay": 0.01,
        "optim": "adamw_torch",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "dataloader_pin_memory": False,
    }
    # An optimizer that the user brings has its own settings.
    found = _elsewhere(workload, techniques, {} if workload.optimizer else plain, "trainer")
    parts = found.arguments.get("gradient_accumulation_steps", 1)
    assert isinstance(parts, int)
    ranks = max(item.ranks for item in compose(techniques)) if techniques else 1
    share = {"per_device_train_batch_size": workload.batch // (parts * max(1, ranks))}
    return Elsewhere(arguments={**share, **found.arguments}, lines=found.lines, no_word=found.no_word)


def for_lightning(workload: Workload, techniques: Sequence[str]) -> Elsewhere:
    """The recipe as flags of Lightning's Trainer."""
    return _elsewhere(workload, techniques, {}, "lightning")


def _elsewhere(workload: Workload, techniques: Sequence[str], plain: Mapping[str, object], name: str) -> Elsewhere:
    arguments, lines, no_word = dict(plain), list[str](), list[str]()
    for item in compose(techniques):
        options = _options(item, name)
        if options is not None:
            arguments |= options
        elif item.code is None or item.code.is_in_the_loop:
            no_word.append(item.name)
        else:
            lines += _by_itself(item.code, workload).lines
    return Elsewhere(arguments=arguments, lines=lines, no_word=no_word)


def _by_itself(code: Code, workload: Workload) -> Code:
    """The code with everything filled in that the script would define around it."""
    filled = code.filled("{parameters}", PLAIN.parameters).filled("LEARNING_RATE", workload.learning_rate)
    filled = filled.filled("0.0 if check else ", "")
    needs_layers = code.linear or any("{blocks}" in line for line in code.model)
    return layers(workload).written(filled) if needs_layers else filled


def _options(item: Technique, name: str) -> Mapping[str, object] | None:
    found: Mapping[str, object] | None = getattr(item.code, name) if item.code else None
    return found
