"""One rank of several, without the others: what it would send or gather has its shape, but nobody answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import rpc
from torch.nn import parallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from harness.prediction.fakes import replaced, replaced_everywhere
from harness.prediction.limits import Unforeseen


@contextlib.contextmanager
def pretended(rank: int, count: int) -> Iterator[None]:
    """This process acts as rank `rank` of `count`, although there are no others."""
    if count == 1:
        yield
        return
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=count)
    try:
        with contextlib.ExitStack() as stack:
            plain = parallel.DistributedDataParallel
            stack.enter_context(replaced_everywhere("DistributedDataParallel", plain, DataParallel))
            stack.enter_context(replaced(rpc, "init_rpc", _unforeseen("what other ranks send in calls")))
            for name in ("recv_object_list", "broadcast_object_list"):
                stack.enter_context(replaced(distributed, name, _unforeseen("what other ranks say about their shapes")))
            yield
    finally:
        distributed.destroy_process_group()


def _unforeseen(what: str) -> Any:
    def raises(*_: Any, **__: Any) -> Any:
        raise Unforeseen(f"{what} is not known until they run")

    return raises


class DataParallel(parallel.DistributedDataParallel):
    """DistributedDataParallel as far as memory is concerned: torch's own makes its buckets in C++, and does not accept
    tensors without data.

    Buckets are as large as all gradients together, and exist from the beginning; with `gradient_as_bucket_view`
    gradients live in them (https://docs.pytorch.org/docs/stable/notes/ddp.html).
    """

    def __init__(self, module: nn.Module, *, gradient_as_bucket_view: bool = False, **_: Any) -> None:
        nn.Module.__init__(self)
        self.module = module
        trained = [item for item in module.parameters() if item.requires_grad]
        self._buckets = {id(item): torch.empty_like(item) for item in trained}
        if gradient_as_bucket_view:
            for item in trained:
                item.register_post_accumulate_grad_hook(self._into_bucket)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        yield

    def register_comm_hook(self, *_: Any) -> None:
        """Nothing to do: a hook compresses what is sent, not the buckets."""

    def _into_bucket(self, parameter: Tensor) -> None:
        parameter.grad = self._buckets[id(parameter)]
