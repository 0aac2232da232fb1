"""Other kernels compute the same losses; processor settings apply to every thread."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.composition import compose, unmet
from bench.corpus import Corpus
from bench.dropout import set_dropout
from bench.host import Host
from bench.setup import TrainingSetup, Unsupported
from harness.timing.trainer import Trainer
from tests.training import apply, build

CPU = Host(device="cpu")
WHY_NO_CHUNKS = unmet(compose(["chunked_loss"]), CPU)


@pytest.fixture
def denormals() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)
    ctypes.CDLL(None).omp_pause_resource_all(2)


class Shapes(TorchDispatchMode):
    """Records the shapes of everything that is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        self.seen |= {tuple(item.shape) for item in torch.utils._pytree.tree_leaves(made) if torch.is_tensor(item)}
        return made


def losses_and_shapes(setup: TrainingSetup) -> tuple[list[float], set[tuple[int, ...]]]:
    set_dropout(setup.model, 0.0)
    trainer = Trainer(setup, seed=0)
    with Shapes() as shapes:
        return trainer.steps(3)["losses"], shapes.seen


@pytest.mark.skipif(WHY_NO_CHUNKS is not None, reason=str(WHY_NO_CHUNKS))
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("model", ["gpt2/nano", "llama/nano", "moe/nano"])
def test_chunked_loss_never_holds_all_scores(corpus: Corpus, model: str) -> None:
    plain, shapes = losses_and_shapes(build(corpus, model))
    assert (8 * 32, 260) in shapes
    losses, shapes = losses_and_shapes(build(corpus, model, "chunked_loss"))
    assert losses == pytest.approx(plain, rel=1e-5)
    assert (8 * 32, 260) not in shapes and (8, 32, 260) not in shapes
    # In half precision the loss is in half precision too, where adjacent numbers are 1/32 apart here.
    assert losses_and_shapes(build(corpus, model, "chunked_loss", "amp_bf16"))[0] == pytest.approx(plain, rel=2e-2)


@pytest.mark.parametrize("model", ["bert/nano", "t5/nano"])
def test_chunked_loss_refuses_what_is_not_causal(corpus: Corpus, model: str) -> None:
    with pytest.raises(Unsupported, match="chunked_loss needs a causal language model of transformers; it is a"):
        build(corpus, model, "chunked_loss")


def test_chunked_loss_is_refused_beforehand_by_a_torch_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    has_it = hasattr(torch.nn.functional, "linear_cross_entropy")
    assert (WHY_NO_CHUNKS is None) == has_it
    monkeypatch.delattr(nn, "LinearCrossEntropyOptions", raising=False)
    assert str(unmet(compose(["chunked_loss"]), CPU)).startswith("chunked_loss needs torch 2.13 or newer")


@pytest.mark.usefixtures("denormals")
def test_denormals_are_flushed_in_every_thread(corpus: Corpus) -> None:
    normal = torch.full((4_000_000,), 2e-38)
    setup = build(corpus, "gpt2/nano")
    assert (normal * 0.1).count_nonzero() == len(normal)
    apply(setup, "flush_denormals")
    assert (normal * 0.1).count_nonzero() == 0
