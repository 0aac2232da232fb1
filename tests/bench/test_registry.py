"""Registration, composition and needs."""

import itertools
import sysconfig
from pathlib import Path

import pytest

from bench.composition import Ranks, compose, ranks, unmet
from bench.host import Host, gpu, package
from bench.registry import Stage, technique, techniques
from bench.setup import TrainingSetup


def test_order_of_names_does_not_matter() -> None:
    names = ("accumulate_4", "compile", "amp_bf16", "adam")
    orders = {tuple(item.name for item in compose(order)) for order in itertools.permutations(names)}
    assert orders == {("amp_bf16", "compile", "adam", "accumulate_4")}


@pytest.mark.parametrize("pair", [("adam", "adamax"), ("amp_bf16", "amp_fp16"), ("accumulate_4", "accumulate_8")])
def test_conflicts_name_both(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="exclude each other") as error:
        compose(pair)
    assert all(name in str(error.value) for name in pair)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match="'amp_bf15' is unknown: did you mean amp_bf16"):
        compose(["amp_bf15"])


def test_parametrised_techniques_fill_their_caption() -> None:
    assert "4 micro-batches" in techniques()["accumulate_4"].caption


def test_every_technique_declares_itself() -> None:
    for item in techniques().values():
        assert item.caption.endswith("."), item.name
        assert item.source.startswith("https://"), item.name
        slots = {other.slot for other in techniques().values()}
        assert item.excludes <= techniques().keys() | slots, item.name


def test_needs_are_given_in_words() -> None:
    cpu = Host(device="cpu")
    old = Host(device="cuda", gpus=1, capability=(7, 0))
    new = Host(device="cuda", gpus=1, capability=(9, 0))
    need = gpu((8, 0), "an Ampere GPU")
    assert need(new) is None
    assert need(cpu) == "needs an Ampere GPU; this run is on cpu"
    assert "7.0" in str(need(old))
    assert package("torch", "torch")(cpu) is None
    assert "pip install 'x[y]'" in str(package("no_such_module", "'x[y]'")(cpu))
    assert unmet(compose(["tf32"]), cpu) is not None
    assert "one for each rank; this run has 1" in str(unmet(compose(["ddp_2"]), new))


def test_what_the_baseline_does_by_itself_is_said_to_and_not_measured() -> None:
    cpu, cuda = Host(device="cpu"), Host(device="cuda", gpus=1, capability=(9, 0))
    batched, looped = compose(["adamw_foreach", "amp_bf16"]), compose(["adamw_loop"])
    expected = "adamw_foreach is the baseline itself on cuda, where torch batches AdamW by default"
    assert (unmet(batched, cuda), unmet(batched, cpu)) == (expected, None)
    expected = "adamw_loop is the baseline itself on cpu, where torch updates one parameter after the other by default"
    assert (unmet(looped, cpu), unmet(looped, cuda)) == (expected, None)
    assert unmet(compose(["flush_denormals"]), cuda) == "flush_denormals needs a CPU; this run is on cuda"
    assert unmet(compose(["flush_denormals"]), cpu) is None


def test_triton_kernels_need_a_compiler_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = Host(device="cpu"), Host(device="cuda", gpus=1, capability=(9, 0))
    monkeypatch.setenv("PATH", "")
    assert "needs a compiler on the PATH, one of gcc" in str(unmet(compose(["int8_mixed_precision"]), cuda))
    assert "needs a compiler on the PATH, one of gcc" in str(unmet(compose(["liger"]), cuda))
    assert unmet(compose(["int8_mixed_precision"]), cpu) is None


def test_what_compiles_for_a_gpu_needs_the_headers_of_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpu, cuda = Host(device="cpu"), Host(device="cuda", gpus=1, capability=(9, 0))
    (tmp_path / "gcc").touch(mode=0o755)
    (tmp_path / "g++").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    reason = f"compile needs Python.h to launch kernels, but it is not in {tmp_path}: apt install python3-dev"
    assert unmet(compose(["compile"]), cuda) == reason
    assert unmet(compose(["compile"]), cpu) is None and unmet(compose(["cuda_graphs"]), cuda) is None
    (tmp_path / "Python.h").touch()
    assert unmet(compose(["compile"]), cuda) is None


def test_ranks_of_a_composition() -> None:
    here = Host(device="cpu")
    assert ranks(compose(["adam"]), here) == Ranks(count=1, replicas=1)
    assert ranks(compose(["adam", "ddp_2"]), here) == Ranks(count=2, replicas=2)


def test_names_are_unique_and_documented() -> None:
    def undocumented(setup: TrainingSetup) -> TrainingSetup:
        return setup

    def adam(setup: TrainingSetup) -> TrainingSetup:
        """Another Adam."""
        return setup

    register = technique(stage=Stage.MODEL, source="https://example.invalid")
    with pytest.raises(ValueError, match="no docstring"):
        register(undocumented)
    with pytest.raises(ValueError, match="'adam' is already registered"):
        register(adam)
