"""What trainpace says of a GPU, held against what a GPU can be asked otherwise: one table for whoever has one.

    python -m tests.gpu_acceptance [--budget SECONDS] [--parts doctor,truth,...] [--out FILE] [--markdown]

Needs a GPU and what the wheel depends on, nothing else. docs/gpu.md says what each row means.
"""
