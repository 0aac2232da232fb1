"""A training between two lives: its whole state, to continue from; samples of its text; and the model folder it
exports."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.corpus import tokenizer_of
from bench.setup import Unsupported
from harness.evidence.held_out import recommended
from harness.timing.trainer import Trainer


def save(trainer: Trainer, file: Path) -> None:
    """Save the training as it stands. The file appears completely or not at all, and survives a power failure."""
    assert trainer.optimizer is not None
    scaler = trainer.setup.scaler
    state = {
        "steps_done": trainer.steps_done,
        "model": plain(trainer.setup.model).state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler else {},
        "drawn": _generators(),
    }
    partial = file.with_name(f".{file.name}")
    with open(partial, "wb") as opened:
        torch.save(state, opened)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(partial, file)


def restore(trainer: Trainer, file: Path) -> None:
    """Bring a training that was built the same way to the saved state: its next update is the one that was due
    there."""
    assert trainer.optimizer is not None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    plain(trainer.setup.model).load_state_dict(state["model"])
    trainer.set_rate(1.0)  # Remembers the optimizer's own rates: the saved ones are those of that moment.
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.setup.scaler:
        trainer.setup.scaler.load_state_dict(state["scaler"])
    trainer.begin_at(state["steps_done"])
    _set_generators(state["drawn"])


def export(trainer: Trainer, folder: Path) -> None:
    """Save the model as a folder that transformers' `from_pretrained` loads, with its tokenizer if it reads text.

    Raises Unsupported if the trained weights are not those of the plain model.
    """
    workload, model = trainer.setup.workload, exported(trainer)
    model.config.use_cache = True
    model.save_pretrained(folder)
    if workload.text is not None:
        tokenizer_of(workload.text.corpus, workload.text.vocabulary).save_pretrained(folder)


def exported(trainer: Trainer) -> Any:
    """The workload's plain model with the trained weights; leaves the generators as they were. Raises Unsupported if
    the weights do not fit it."""
    before = _generators()
    model: Any = trainer.setup.workload.model()
    _set_generators(before)
    try:
        with recommended(trainer.setup.model, trainer.optimizer):
            weights = {name: item.cpu() for name, item in plain(trainer.setup.model).state_dict().items()}
            model.load_state_dict(weights)
    except RuntimeError as error:
        raise Unsupported("a technique changed the model's weights so that transformers cannot load them") from error
    return model.eval()


@torch.inference_mode()
def written(trainer: Trainer, count: int, length: int, prompt: str) -> list[str]:
    """`count` texts of up to `length` tokens that the model writes after the prompt (cut to the sequence length),
    sampled from the likeliest tokens."""
    workload, model = trainer.setup.workload, exported(trainer).to(trainer.setup.device)
    assert workload.text is not None
    tokenizer = tokenizer_of(workload.text.corpus, workload.text.vocabulary)
    ids = tokenizer(prompt)["input_ids"][: workload.text.sequence] or [workload.text.vocabulary.end]
    before = _generators()
    torch.manual_seed(0)
    begun = torch.tensor([ids] * count, device=trainer.setup.device)
    found = model.generate(begun, max_new_tokens=length, do_sample=True, top_k=40, use_cache=True)
    _set_generators(before)
    return [tokenizer.decode(item, skip_special_tokens=True) for item in found.cpu()]


def plain(model: nn.Module) -> Any:
    """The model inside torch.compile's wrapper."""
    return getattr(model, "_orig_mod", model)


def _generators() -> dict[str, Any]:
    """The state of all of the process's generators, in a form that torch.load reads without running code."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _set_generators(kept: dict[str, Any]) -> None:
    random.setstate(kept["python"])
    name, keys, *rest = kept["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(kept["torch"])
    if kept["cuda"]:
        torch.cuda.set_rng_state_all(kept["cuda"])
