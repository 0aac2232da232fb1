"""A bare training loop without any of trainpace, to hold its figures against: N contiguous steps for each line N on
stdin.

Answers with the seconds of each step; with --window, as is needed on a GPU, whose steps end after the host has asked
for them, with the mean step of all N between synchronised ends and the part of it that went into waiting for data.
"""

import argparse
import contextlib
import sys
import time

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

SHAPES = {
    # Width, layers, heads, vocabulary, number of the end token.
    "gpt2/nano": (64, 2, 2, 260, 256),
    "gpt2/tiny": (128, 4, 4, 260, 256),
    "gpt2/small": (768, 12, 12, 50257, 0),
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("tokens")
parser.add_argument("batch", type=int)
parser.add_argument("sequence", type=int)
parser.add_argument("--model", choices=SHAPES, default="gpt2/tiny")
parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of autocast")
parser.add_argument("--window", action="store_true")
options = parser.parse_args()
if options.device == "cuda" and not options.window:
    parser.error("the steps of a GPU end after the host has asked for them: give --window")

width, layers, heads, vocabulary, end = SHAPES[options.model]
tokens, sequence = np.load(options.tokens, mmap_mode="r"), options.sequence
config = GPT2Config(
    vocab_size=vocabulary,
    n_embd=width,
    n_layer=layers,
    n_head=heads,
    bos_token_id=end,
    eos_token_id=end,
    use_cache=False,
)
model = GPT2LMHeadModel(config).train().to(options.device)
model.loss_type = "ForCausalLM"  # as the workload has it; otherwise only a warning differs
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
samples = torch.from_numpy(tokens[: len(tokens) // sequence * sequence].astype(np.int64)).view(-1, sequence)
batches = iter(torch.utils.data.DataLoader(samples, batch_size=options.batch, shuffle=True))  # type: ignore[arg-type]
half = torch.autocast(options.device, dtype=torch.bfloat16)


def synchronize() -> None:
    if options.device == "cuda":
        torch.cuda.synchronize()


for line in sys.stdin:
    times_s, waits_s = [], []
    synchronize()
    begun = time.perf_counter()
    for _ in range(int(line)):
        started = time.perf_counter()
        ids = next(batches)
        # The copy that follows waits for what the GPU still has to do: that is no wait for data.
        waits_s.append(time.perf_counter() - started)
        ids = ids.to(options.device)
        with half if options.dtype == "bfloat16" else contextlib.nullcontext():
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times_s.append(time.perf_counter() - started)
    synchronize()
    window_s = time.perf_counter() - begun
    print(*([window_s / len(times_s), sum(waits_s) / len(waits_s)] if options.window else times_s), flush=True)
