"""A bare training loop to compare trainpace's figures with: what a user would write, alone in its own process.

The model, the samples and the loss are the workload's; the loader, the optimizer and the loop are plain torch, without
any of trainpace's measuring. For each line N on stdin it takes N contiguous steps, and answers with two times in
seconds: the mean of all N steps between synchronised ends, and how much of it was waiting for data.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

TECHNIQUES = ("", "adamw_fused", "checkpoint_activations", "pure_bf16")
WARM_STEPS = 10
COUNTED_STEPS = 5
"""The minimum of a window: with two steps, as in a short window of a slow model, the loop was 3 % slower."""

COLD_STEPS = 2
COLD_S = 0.03
"""After others have run, at least this many steps and seconds of a loop find caches cold: with 16 others on two cores,
the first four steps of 7 ms, or the first of 50 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A number of contiguous steps: the mean step, and how much of it was waiting for data, in seconds."""

    step_s: float
    data_wait_s: float


class BareLoop:
    """The loop in its own process, stepped on demand. Use as a context manager."""

    def __init__(self, model: str, *options: str) -> None:
        command = [sys.executable, "-m", "harness.processes.bare_loop", model, *options]
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def warm_up(self) -> None:
        """The first steps load kernels; the next show how long a step is."""
        self.steps(WARM_STEPS)
        self._step_s = self.steps(WARM_STEPS).step_s

    def window(self, seconds: float) -> Window:
        """Contiguous steps for about so many seconds, after some uncounted ones that find caches cold if others have
        run."""
        self.steps(max(COLD_STEPS, math.ceil(COLD_S / self._step_s)))
        return self.steps(max(COUNTED_STEPS, math.ceil(seconds / self._step_s)))

    def steps(self, count: int) -> Window:
        """Raises RuntimeError if the loop has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if not answer:
            raise RuntimeError(f"the bare loop ended with exit code {self._process.wait()}")
        step_s, data_wait_s = map(float, answer)
        return Window(step_s=step_s, data_wait_s=data_wait_s)

    def __enter__(self) -> BareLoop:
        return self

    def __exit__(self, *_: type[BaseException] | TracebackType | BaseException | None) -> None:
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="as for `trainpace run --model`")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--sequence", type=int)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of autocast")
    parser.add_argument("--technique", choices=TECHNIQUES, default="")
    options = parser.parse_args()

    import torch

    from bench.corpus import open_corpus
    from bench.resolve import resolve
    from bench.spec import WorkloadSpec
    from harness.processes.quiet import quieten

    quieten()
    torch.manual_seed(0)
    spec = WorkloadSpec(model=options.model, batch=options.batch, sequence=options.sequence)
    workload = resolve(spec, open_corpus(None))
    model = workload.model().train().to(options.device)
    if options.technique == "checkpoint_activations":
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    if options.technique == "pure_bf16":
        model = model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=options.technique == "adamw_fused" or None)
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        workload.data(),
        batch_size=workload.batch,
        shuffle=True,
        drop_last=True,
    )
    half = torch.autocast(options.device, dtype=torch.bfloat16)

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    def synchronize() -> None:
        if options.device == "cuda":
            torch.cuda.synchronize()

    batches = endless()
    for line in sys.stdin:
        count, waited_s = int(line), 0.0
        synchronize()
        begun = time.perf_counter()
        for _ in range(count):
            asked = time.perf_counter()
            batch = next(batches)
            # The copy that follows waits for the GPU's pending work: that is not waiting for data.
            waited_s += time.perf_counter() - asked
            batch = {name: tensor.to(options.device) for name, tensor in batch.items()}
            with half if options.dtype == "bfloat16" else contextlib.nullcontext():
                loss = workload.loss(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        synchronize()
        print((time.perf_counter() - begun) / count, waited_s / count, flush=True)


if __name__ == "__main__":
    main()
