"""What a model has learnt: its loss on held-out samples, and whether it was trained on any of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader

from bench.samples import IGNORED
from bench.setup import TrainingSetup
from bench.workload import Batch, Samples
from harness.message import Message

EVALUATED = 8
"""How many batches of held-out samples are evaluated, the same ones in every arm and every time."""

KNOWN = 4096
"""How many held-out samples are recognised if a model is trained on them."""

WINDOW = 32
"""How many consecutive elements identify a stretch of samples."""


class HeldOut:
    """Evaluates a setup as it trains. `loss` is the plain loss of the workload, whatever loss a technique trains on."""

    def __init__(self, samples: Samples, setup: TrainingSetup) -> None:
        """`setup` is the baseline's, before any technique; there is at least one batch of samples."""
        self._collate = setup.workload.collate
        drawn = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
        batch = setup.workload.batch
        self._batches = self._loader(samples, drawn[: len(drawn) // batch * batch][: EVALUATED * batch], batch)
        self._loss: Callable[[nn.Module, Batch], Tensor] = setup.loss
        self._device = setup.device
        self._known = _Windows(self._loader(samples, drawn[:KNOWN], batch))

    def _loader(self, samples: Samples, indices: Sequence[int], batch: int) -> DataLoader[Any]:
        return DataLoader(
            samples,  # type: ignore[arg-type]
            batch_size=batch,
            sampler=sorted(indices),
            collate_fn=self._collate,
        )

    def watch(self, model: nn.Module) -> None:
        """Check from now on whether the model is trained on held-out samples."""
        self._known.watch(model)

    def evaluate(self, wrapped: nn.Module, optimizer: Any) -> Message:
        """`held_out_loss`: the mean loss, without dropout, in the number format of the weights. `seen_share`: the
        held-out share of what the model was trained on so far."""
        model: nn.Module = getattr(wrapped, "_orig_mod", wrapped)
        # Compiled models would be compiled once more for this.
        with (
            recommended(model, optimizer),
            torch.inference_mode(),
            self._known.paused(),
            torch.compiler.set_stance("force_eager"),
        ):
            losses = [float(self._loss(model, batch)) for batch in self._placed()]
        return {"held_out_loss": math.fsum(losses) / len(losses), "seen_share": self._known.share}

    def _placed(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield tree_map_only(Tensor, lambda item: item.to(self._device), batch)


@contextlib.contextmanager
def recommended(model: nn.Module, optimizer: Any) -> Iterator[None]:
    """The model as it is meant to be used: without dropout, and with the weights that the optimizer recommends, if it
    trains at others."""
    modes = {module: module.training for module in model.modules()}
    has_modes = hasattr(optimizer, "eval") and hasattr(optimizer, "train")
    model.eval()
    if has_modes:
        optimizer.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        if has_modes:
            optimizer.train()


class _Windows:
    """Recognises held-out stretches of samples, and counts those that reach a model."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._factors = np.random.default_rng(0).integers(1, 2**63, WINDOW, np.uint64) | np.uint64(1)
        found = [self._hashes(row, step=1) for batch in batches for row in _rows(batch)]
        self._known = np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)
        self._seen = self._of = 0
        self._is_paused = False

    @property
    def share(self) -> float:
        return self._seen / self._of if self._of else 0.0

    def watch(self, model: nn.Module) -> None:
        model.register_forward_pre_hook(self._saw, with_kwargs=True)

    def paused(self) -> _Paused:
        return _Paused(self)

    def _saw(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._is_paused or torch.compiler.is_compiling():
            return
        # A few rows of each batch are enough, and cost next to nothing.
        batch = kwargs or (args[0] if args else ())
        for row in _rows(batch)[:2]:
            hashes = self._hashes(row, step=WINDOW)
            places = np.searchsorted(self._known, hashes)
            inside = places < len(self._known)
            self._seen += int((self._known[places[inside]] == hashes[inside]).sum())
            self._of += len(hashes)

    def _hashes(self, row: np.ndarray, step: int) -> np.ndarray:
        """A hash for each window of the row."""
        if len(row) < WINDOW:
            return np.zeros(0, np.uint64)
        windows = np.lib.stride_tricks.sliding_window_view(row, WINDOW)[::step]
        hashes: np.ndarray = (windows * self._factors).sum(1, dtype=np.uint64)
        return hashes


class _Paused:
    """Stops the count while held-out samples are evaluated."""

    def __init__(self, windows: _Windows) -> None:
        self._windows = windows

    def __enter__(self) -> None:
        self._windows._is_paused = True

    def __exit__(self, *_: object) -> None:
        self._windows._is_paused = False


def _rows(batch: Batch) -> list[np.ndarray]:
    """Each sample's first tensor as integers: for a language model, its tokens."""
    named = batch if isinstance(batch, dict) else {}
    tensors = [leaf for leaf in tree_leaves((named.get("input_ids"), batch)) if isinstance(leaf, Tensor)]
    first = next((tensor.detach().cpu() for tensor in tensors if tensor.dim() > 1), None)
    if first is None:
        return []
    labels = named.get("labels")
    if isinstance(labels, Tensor) and labels.shape == first.shape:
        # The input of a masked model is not the text; its labels are.
        first = torch.where(labels.cpu().ne(IGNORED), labels.cpu(), first)
    first = first.flatten(1)
    numbers = first.view(torch.int32) if first.dtype is torch.float32 else first
    return list(numbers.numpy().astype(np.int64).view(np.uint64))
