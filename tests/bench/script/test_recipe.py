"""A recipe's script trains like the arm, and is short and readable."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from transformers import TrainingArguments

from bench.composition import compose, unmet
from bench.corpus import Corpus
from bench.host import Host, compiler
from bench.registry import Technique, techniques
from bench.resolve import resolve
from bench.script.recipe import for_lightning, for_trainer
from bench.spec import Phase, WorkloadSpec
from harness.message import Message
from harness.preparation.prepared import TASK_TIMEOUT_S
from harness.processes.fork_server import ForkServer
from tests import ROOT
from tests.scripts import length, losses_in

UPDATES = 10

Written = Callable[..., Path]


WITHOUT_TEXT = ("resnet/nano", "whisper/nano", "vit/nano")


def request_of(model: str, corpus: Corpus) -> Message:
    """A request for 8 samples per update, of 32 tokens if they are text."""
    if model in WITHOUT_TEXT or model.endswith(":training_step"):
        spec = WorkloadSpec(model=model)
    else:
        spec = WorkloadSpec(model=model, corpus=corpus.path, batch=8, sequence=32)
    return {"workload": dataclasses.asdict(spec), "corpus": dataclasses.asdict(corpus)}


def write_down(
    fork_server: ForkServer,
    request: Message,
    names: Sequence[str],
    folder: Path,
    losses: Sequence[float] = (),
    *,
    rate: float = 1.0,
    device: str = "cpu",
) -> Message:
    arguments = {
        "request": request,
        "techniques": names,
        "device": device,
        "seed": 0,
        "said": [f"Train {request['workload']['model']}."],
        "losses": losses,
        # Losses are written with four digits.
        "tolerance": 1e-3,
        "folder": str(folder),
        "rate": rate,
    }
    answer: Message = fork_server.run("harness.preparation.scripting:write_down", arguments, TASK_TIMEOUT_S)
    return answer


@pytest.fixture
def written(fork_server: ForkServer, corpus: Corpus, tmp_path: Path) -> Written:
    """Write a script with the losses of its arm, or with those of other techniques."""

    def write(model: str, names: Sequence[str], losses: Sequence[float] = (), of: Sequence[str] | None = None) -> Path:
        request = request_of(model, corpus)
        if not losses:
            arguments = {"request": request, "techniques": names if of is None else of, "count": UPDATES}
            losses = fork_server.run("tests.scripts:replayed_losses", arguments, TASK_TIMEOUT_S)
        answer = write_down(fork_server, request, names, tmp_path, losses)
        assert answer["no_script"] is None
        return tmp_path / "recipe.py"

    return write


def check(fork_server: ForkServer, script: Path, most_lines: int = 120) -> None:
    """The script's losses match those written in it, and its text is clean."""
    output = fork_server.run("tests.scripts:script_output", {"path": str(script)}, TASK_TIMEOUT_S)
    assert "not the one that was measured" not in output
    assert len(losses_in(output)) == UPDATES, output
    check_text(script, most_lines)


def check_text(script: Path, most_lines: int = 120) -> None:
    """The script is short, and a linter finds nothing."""
    assert length(script) < most_lines
    check_style(script)


def check_style(script: Path) -> None:
    assert "trainpace" not in script.read_text().partition('"""\n')[2]
    for command in (["check", "--select", "E4,E7,E9,F,I,B,UP,SIM"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", command[0], "--isolated", *command[1:], str(script)]
        found = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + script.read_text()


HOST = Host(device="cpu", gpus=0, cores=2)


def needs_a_gpu(item: Technique) -> bool:
    """Whether training with it needs a GPU. The code that flex_attention compiles for a CPU has no backward pass."""
    return bool(unmet([item], HOST, Phase.PRETRAIN)) or item.name == "flex_attention"


def able() -> list[Technique]:
    """The techniques that have code and run on a CPU in one process."""
    return [item for item in techniques().values() if item.code and item.ranks == 1 and not needs_a_gpu(item)]


def compiles(item: Technique) -> bool:
    return compiler in item.needs


def is_one_line(item: Technique) -> bool:
    """Whether it just replaces the optimizer, as `adamw_fused` and `lamb` do."""
    return item.family == "optimizers" and item.name not in ("adamw_fused", "lamb")


KNOWN_BY = dict.fromkeys(
    ("chunked_loss", "sdpa_flash", "int8_mixed_precision", "fp8_rowwise", "fp8_tensorwise"), "llama/nano"
)
"""Models for techniques that GPT-2 does not support, or not with its dropout, or not in so few lines."""

ALIKE = (
    "accumulate_8",
    "accumulate_16",
    "workers_4",
    "compile_dynamic",
    "compile_max_autotune",
    "adamw_4bit",
    "adamw_8bit",
)
"""Techniques that another one represents: their code differs only in a number or a word."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(item.name, marks=[pytest.mark.long] if compiles(item) or is_one_line(item) else [])
        for item in able()
        if item.name not in ALIKE
    ],
)
def test_a_script_trains_as_the_arm_with_the_technique_does(
    written: Written, fork_server: ForkServer, name: str
) -> None:
    check(fork_server, written(KNOWN_BY.get(name, "gpt2/nano"), [name]))


@pytest.mark.parametrize(
    "model", ["bert/nano", "t5/nano", "moe/nano", "roberta/nano", "resnet/nano", "whisper/nano", "vit/nano"]
)
def test_every_kind_of_model_and_data_has_a_script(written: Written, fork_server: ForkServer, model: str) -> None:
    check(fork_server, written(model, ["adamw_foreach"]))


@pytest.mark.parametrize(
    ("model", "names"), [("vit/nano", ["qat_int8"]), ("gpt2/nano", ["freeze_embeddings", "optimizer_in_backward"])]
)
def test_a_model_without_a_head_and_frozen_parameters_are_known(
    written: Written, fork_server: ForkServer, model: str, names: list[str]
) -> None:
    check(fork_server, written(model, names), most_lines=130)


@pytest.mark.parametrize("seed", range(6))
def test_compositions_have_scripts(written: Written, fork_server: ForkServer, seed: int) -> None:
    check(fork_server, written("gpt2/nano", drawn(random.Random(seed))), most_lines=130)


def drawn(draw: random.Random) -> list[str]:
    """Four techniques that can be combined."""
    names: list[str] = []
    # Some optimizers cannot be combined with everything.
    apart = (*ALIKE, *KNOWN_BY, "muon")
    plain = sorted(item.name for item in able() if not compiles(item) and item.name not in apart)
    for name in draw.sample(plain, len(plain)):
        with contextlib.suppress(ValueError):
            compose([*names, name])
            names.append(name)
    return names[:4]


def test_a_model_of_the_users_is_imported_from_its_file(
    written: Written, fork_server: ForkServer, tmp_path: Path
) -> None:
    (tmp_path / "own_llama.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "def make_model():\n"
        "    sizes = {'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 2, 'num_attention_heads': 2}\n"
        "    return LlamaForCausalLM(LlamaConfig(vocab_size=260, **sizes))\n"
    )
    check(fork_server, written(f"{tmp_path / 'own_llama.py'}:make_model", ["accumulate_2"]))


def test_a_loss_that_is_another_is_found_out(written: Written, fork_server: ForkServer) -> None:
    script = written("gpt2/nano", ["sgd"], losses=[5.7] * UPDATES)
    output = fork_server.run("tests.scripts:script_output", {"path": str(script)}, TASK_TIMEOUT_S)
    assert "not the one that was measured" in output


@pytest.mark.long
def test_another_learning_rate_is_trained_at_and_its_own_checked(
    written: Written, fork_server: ForkServer, corpus: Corpus, tmp_path: Path
) -> None:
    plain = written("gpt2/nano", ["adam"])
    output = fork_server.run("tests.scripts:script_output", {"path": str(plain)}, TASK_TIMEOUT_S)
    answer = write_down(fork_server, request_of("gpt2/nano", corpus), ["adam"], tmp_path, losses_in(output), rate=30.0)
    assert answer["no_script"] is None
    text = plain.read_text()
    assert "LEARNING_RATE = 0.003\n" in text and "LEARNING_RATE = 0.0001  # at which they were measured" in text
    check_text(plain)
    ran = subprocess.run([sys.executable, plain, "--check"], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0 and "update 10: loss" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", ["ddp_2", "fsdp2"])
def test_ranks_train_together(written: Written, fork_server: ForkServer, name: str) -> None:
    """Two ranks with micro-batches, started by torch's own launcher, against one process with the whole batch."""
    script = written("gpt2/nano", [name, "accumulate_2"], of=[])
    check_style(script)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run([*launcher, str(script), "--check"], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "update 10: loss" in ran.stdout


@pytest.mark.parametrize(
    "name", ["fp32", *(item.name for item in techniques().values() if item.code and needs_a_gpu(item))]
)
def test_what_needs_a_gpu_is_written_too(fork_server: ForkServer, corpus: Corpus, tmp_path: Path, name: str) -> None:
    """Nothing here can run it, but a linter checks that every name is defined."""
    names = [] if name == "fp32" else [name]
    request = request_of(KNOWN_BY.get(name, "gpt2/nano"), corpus)
    answer = write_down(fork_server, request, names, tmp_path, [5.5] * UPDATES, device="cuda")
    assert answer["no_script"] is None
    # Code for several ranks takes a few lines more.
    (check_style if name.startswith("ddp") else check_text)(tmp_path / "recipe.py")


def test_what_a_recipe_is_to_other_trainers(corpus: Corpus) -> None:
    workload = resolve(WorkloadSpec(model="gpt2/nano", batch=8, sequence=32), corpus)
    names = ["amp_bf16", "attention_eager", "accumulate_2", "adamw_fused", "prefetch_thread"]
    found = for_trainer(workload, names)
    assert found.arguments["bf16"] is True
    assert found.arguments["optim"] == "adamw_torch_fused"
    assert (found.arguments["per_device_train_batch_size"], found.arguments["gradient_accumulation_steps"]) == (4, 2)
    assert found.lines == ['model.set_attn_implementation("eager")']
    assert found.no_word == ["prefetch_thread"]
    elsewhere = for_lightning(workload, names)
    assert elsewhere.arguments == {"precision": "bf16-mixed", "accumulate_grad_batches": 2}
    assert elsewhere.no_word == ["prefetch_thread"]
    assert "optimizer = torch.optim.AdamW(model.parameters(), lr=0.0001, fused=True)" in elsewhere.lines
    others = for_lightning(workload, ["compile_blocks", "workers_2", "weight_decay"])
    assert others.lines == [
        "for block in model.transformer.h:",
        "    block.compile()",
        "loader = DataLoader(samples, num_workers=2)",
    ]
    assert others.no_word == ["weight_decay"]
    # transformers accepts them unchanged.
    TrainingArguments("unused", use_cpu=True, report_to=[], **found.arguments)


@pytest.mark.parametrize(
    ("model", "names", "reason"),
    [
        ("gpt2/nano", ["distill"], "distill"),
        ("gpt2/nano", ["fsdp2", "compile"], "fsdp2 is beside compile"),
        ("gpt2/nano", ["muon", "schedule_cosine"], "muon is beside a schedule"),
        ("gpt2/nano", ["muon", "weight_decay"], "muon is beside parameters in groups"),
        (f"{ROOT / 'tests' / 'brought.py'}:training_step", [], "a loss or a loop of its own"),
    ],
)
def test_what_has_no_script_says_why(
    fork_server: ForkServer, corpus: Corpus, tmp_path: Path, *, model: str, names: list[str], reason: str
) -> None:
    answer = write_down(fork_server, request_of(model, corpus), names, tmp_path)
    assert reason in answer["no_script"]
    assert not (tmp_path / "recipe.py").exists()
