"""Check trainpace's results on a GPU against what is known about it from other sources, in one table.

    python -m tests.gpu_acceptance [--budget SECONDS] [--parts doctor,truth,...] [--out FILE] [--markdown]

Needs only a GPU and the dependencies of the wheel. docs/gpu.md says what each row means.
"""
