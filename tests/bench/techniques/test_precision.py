"""Number formats: everything is in the format that is claimed, and training still follows the baseline."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from bench.composition import compose
from bench.corpus import Corpus
from bench.dropout import set_dropout
from bench.resolve import resolve
from bench.setup import TrainingSetup, baseline
from bench.spec import Phase, WorkloadSpec
from bench.techniques.sparsity import half_format, semi_sparse
from harness.evidence.witness import dtypes
from harness.timing.feed import Batches
from harness.timing.trainer import Trainer
from tests.training import apply, build

pytestmark = pytest.mark.usefixtures("one_thread")

both_models = pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])


def quiet(corpus: Corpus, model: str, *names: str) -> TrainingSetup:
    setup = build(corpus, model)
    set_dropout(setup.model, 0.0)
    return apply(setup, *names)


@both_models
@pytest.mark.parametrize(("name", "kind"), [("pure_bf16", "bfloat16"), ("pure_fp16", "float16")])
def test_parameters_gradients_and_state_are_all_in_half_precision(
    corpus: Corpus, model: str, name: str, kind: str
) -> None:
    trainer = Trainer(build(corpus, model, name), seed=0)
    assert trainer.optimizer is not None
    seen: list[torch.Tensor] = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(item.grad for item in trainer.setup.model.parameters() if item.grad is not None)
    )
    trainer.steps(1)
    state = [item for each in trainer.optimizer.state.values() for item in each.values() if item.dim()]
    assert dtypes(list(trainer.setup.model.parameters())) == dtypes(seen) == dtypes(state) == [kind]


@both_models
def test_ten_updates_in_float16_follow_the_baseline(corpus: Corpus, model: str) -> None:
    exact = Trainer(quiet(corpus, model), seed=0).steps(10)["losses"]
    (technique,) = compose(["pure_fp16"])
    rounded = Trainer(quiet(corpus, model, "pure_fp16"), seed=0).steps(10)["losses"]
    assert all(math.isfinite(loss) for loss in rounded)
    assert rounded == pytest.approx(exact, rel=technique.loss_tolerance)


@pytest.mark.parametrize(
    ("names", "compute"),
    [
        ((), "float32"),
        (("amp_bf16",), "bfloat16"),
        (("amp_fp16",), "float16"),
        (("pure_bf16",), "bfloat16"),
        (("pure_fp16",), "float16"),
        (("int8_mixed_precision",), "int8"),
        (("int8_mixed_precision", "pure_bf16"), "int8"),
        (("int8_weights",), "float32"),
        (("int8_weights", "pure_bf16"), "bfloat16"),
        (("qat_int8",), "float32"),
        (("qat_int8", "amp_bf16"), "bfloat16"),
        (("qlora",), "float32"),
    ],
)
def test_utilisation_is_held_against_the_format_that_products_run_in(
    corpus: Corpus, names: tuple[str, ...], compute: str
) -> None:
    assert build(corpus, "gpt2/nano", *names).compute == compute


@pytest.mark.parametrize(("name", "compute"), [("serve_int8", "int8"), ("serve_int8_weights", "float32")])
def test_what_is_served_in_int8_is_held_against_it_if_its_products_are(corpus: Corpus, name: str, compute: str) -> None:
    workload = resolve(WorkloadSpec(model="gpt2/nano", batch=8, sequence=32, phase=Phase.INFER), corpus)
    setup = apply(baseline(workload, torch.device("cpu")), name)
    with torch.no_grad(), torch.autograd.profiler.profile(use_kineto=False) as profile:
        setup.loss(setup.model, next(Batches(setup, seed=0)))
    assert any("int_mm" in event.key for event in profile.key_averages()) == (compute == "int8")
    assert setup.compute == compute


@pytest.mark.parametrize(
    ("name", "compute"),
    [(None, "bfloat16"), ("amp_bf16", "bfloat16"), ("amp_fp16", "float16"), ("pure_fp16", "float16")],
)
def test_sparse_products_run_in_16_bits(corpus: Corpus, name: str | None, compute: str) -> None:
    setup = semi_sparse(build(corpus, "gpt2/nano", *([name] if name else [])))
    weight = setup.model.get_parameter("transformer.h.0.mlp.c_fc.weight")
    with setup.autocast():
        assert half_format(weight) is getattr(torch, compute)
    assert setup.compute == compute


TF32 = """
import torch
import torch._inductor.config
from bench.composition import compose
from bench.setup import baseline
from bench.workload import Workload

(tf32,) = compose(["tf32"])
setup = tf32.apply(baseline(Workload(model=lambda: torch.nn.Linear(64, 64), data=list, batch=2), torch.device("cpu")))
found = torch.backends.cuda.matmul
print(torch.get_float32_matmul_precision(), found.allow_tf32, found.fp32_precision, torch.backends.cudnn.allow_tf32)
# With its weights frozen a product is chosen among several on a CPU too, which is where inductor reads the switch.
torch._inductor.config.freezing = True
data = torch.randn(32, 64)
with torch.no_grad():
    compiled = torch.compile(setup.model.eval(), mode="max-autotune")(data)
    torch.testing.assert_close(compiled, setup.model(data), rtol=1e-2, atol=1e-2)
print(setup.compute)
"""


@pytest.mark.long
def test_tf32_leaves_switches_that_inductor_can_read() -> None:
    """In a separate process, because the setting is global; without a GPU, the products do not change."""
    done = subprocess.run([sys.executable, "-c", TF32], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.splitlines() == ["high True tf32 True", "tf32"], done.stderr
