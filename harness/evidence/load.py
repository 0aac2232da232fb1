"""What a batch holds: samples, and tokens without padding."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from bench.workload import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one batch holds: its samples, and its tokens without padding (None if samples are not text)."""

    samples: int
    tokens: int | None


def load(batch: Batch, samples: int, tokens_per_sample: int | None) -> Load:
    """Count on the host, before the batch goes to the device: there the count would have to be waited for."""
    if tokens_per_sample is None:
        return Load(samples=samples, tokens=None)
    mask = batch.get("attention_mask") if isinstance(batch, dict) else None
    most = samples * tokens_per_sample
    return Load(samples=samples, tokens=most if mask is None else real_tokens(mask, samples, most))


def real_tokens(mask: Tensor, samples: int, most: int) -> int:
    """How many of `most` tokens of so many samples are not padding, according to an attention mask.

    A mask has one entry per token, shape (samples, tokens), or one for each query and key, (samples, [heads,] queries,
    keys); its first dimension may be 1 for all samples. It is boolean, of 0 and 1, or additive: large negative numbers
    where a token is masked, else 0. In a square mask a token is padding if it does not even see itself.
    """
    is_additive = mask.is_floating_point() and not bool((mask > 0).any())
    seen = mask > -1.0 if is_additive else mask != 0
    if seen.dim() > 2:
        is_square = seen.shape[-1] == seen.shape[-2]
        seen = seen.diagonal(dim1=-2, dim2=-1) if is_square else seen.any(-2)
        # Heads usually have the same mask; otherwise a token is real if it is so for one of them.
        seen = seen.flatten(1, -2).any(1) if seen.dim() > 2 else seen
    return min(most, int(seen.sum()) * (samples if len(seen) == 1 else 1))


def rows(tensors: Iterable[Tensor], expected: int) -> int:
    """How many samples tensors hold: the size of their first dimension, unless one of their first two dimensions has
    the expected size. A recurrent network may take time first."""
    found = [tensor for tensor in tensors if tensor.dim()]
    if not found:
        return 0
    sizes = [size for tensor in found for size in tensor.shape[:2]]
    return expected if expected in sizes else len(found[0])


@dataclass(slots=True)
class Counted:
    """Index lists for a loader; remembers the length of each for whoever takes the batches."""

    order: Iterable[list[int]]
    _sizes: deque[int] = field(default_factory=deque)

    def __iter__(self) -> Iterator[list[int]]:
        for indices in self.order:
            self._sizes.append(len(indices))
            yield indices

    def taken(self) -> Iterator[int]:
        """The lengths, in order, each available once its list was requested."""
        while True:
            yield self._sizes.popleft()
