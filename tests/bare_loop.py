"""A bare training loop without any of trainpace, to hold its figures against: N steps for each line N on stdin."""

import sys
import time

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

tokens, batch, sequence = np.load(sys.argv[1], mmap_mode="r"), int(sys.argv[2]), int(sys.argv[3])
config = GPT2Config(
    vocab_size=260, n_embd=128, n_layer=4, n_head=4, bos_token_id=256, eos_token_id=256, use_cache=False
)
model = GPT2LMHeadModel(config).train()
model.loss_type = "ForCausalLM"  # as the workload has it; otherwise only a warning differs
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
samples = torch.from_numpy(tokens[: len(tokens) // sequence * sequence].astype(np.int64)).view(-1, sequence)
batches = iter(torch.utils.data.DataLoader(samples, batch_size=batch, shuffle=True))  # type: ignore[arg-type]
for line in sys.stdin:
    times_s = []
    for _ in range(int(line)):
        started = time.perf_counter()
        ids = next(batches)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times_s.append(time.perf_counter() - started)
    print(*times_s, flush=True)
