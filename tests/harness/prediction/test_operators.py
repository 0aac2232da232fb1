"""The operators of an update, and how long each takes by itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.corpus import Corpus
from bench.resolve import resolve
from bench.spec import Phase, WorkloadSpec
from bench.workload import Workload
from harness.prediction import pace
from harness.prediction.calls import Call
from harness.prediction.limits import Unforeseen
from harness.prediction.pace import INDICES, Pools, time_operator
from harness.prediction.trial import Trial


def times_s(*calls: Call) -> list[float | None]:
    pools = [Pools(index) for index in INDICES]
    return [time_operator(call, pools) for call in calls]


@pytest.fixture(scope="module")
def workload(corpus: Corpus) -> Workload:
    return resolve(WorkloadSpec(model="gpt2/nano", batch=8, sequence=32), corpus)


def by_name(calls: Counter[Call]) -> Counter[str]:
    found = Counter[str]()
    for call, count in calls.items():
        found[json.loads(call)[0]] += count
    return found


def test_operators_are_those_of_one_update(workload: Workload) -> None:
    once = by_name(Trial(device="cpu").operators(workload))
    model: Any = workload.model()
    layers = model.config.n_layer
    # Each block projects to queries, keys and values, projects the attention's output, and has two more linear layers.
    assert once["aten.addmm.default"] == 4 * layers
    assert once["aten.embedding_dense_backward.default"] == 2
    in_parts = by_name(Trial(device="cpu", techniques=("accumulate_4",)).operators(workload))
    assert in_parts["aten.addmm.default"] == 4 * once["aten.addmm.default"]
    fused = by_name(Trial(device="cpu", techniques=("adamw_fused",)).operators(workload))
    assert fused["aten._fused_adamw_.default"] == 1


def test_a_forward_pass_has_no_backward(corpus: Corpus) -> None:
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=32, phase=Phase.INFER)
    calls = by_name(Trial(device="cpu").operators(resolve(spec, corpus)))
    assert calls["aten.addmm.default"] and not any("backward" in name for name in calls)


@pytest.mark.parametrize(
    ("techniques", "reason"),
    [
        (("compile",), "what torch.compile makes of a model"),
        (("largest_batch",), "its batch is found by trying"),
        (("layer_drop",), "what it does is random"),
    ],
)
def test_what_cannot_be_foreseen_says_so(workload: Workload, techniques: tuple[str, ...], reason: str) -> None:
    with pytest.raises(Unforeseen, match=reason):
        Trial(device="cpu", techniques=techniques).operators(workload)


@pytest.mark.parametrize(
    "techniques",
    [
        (),
        *(
            pytest.param(names, marks=pytest.mark.long)
            for names in (("amp_bf16",), ("int8_mixed_precision",), ("qat_int8",), ("muon",))
        ),
    ],
)
def test_every_operator_of_an_update_can_be_timed(workload: Workload, techniques: tuple[str, ...]) -> None:
    calls = list(Trial(device="cpu", techniques=techniques).operators(workload))
    assert [call for call, time_s in zip(calls, times_s(*calls), strict=True) if not time_s] == []


def test_the_load_of_experts_is_not_known(corpus: Corpus) -> None:
    workload = resolve(WorkloadSpec(model="moe/nano", batch=2, sequence=32), corpus)
    with pytest.raises(Unforeseen, match="depends on the data"):
        Trial(device="cpu").operators(workload)


def call(name: str, *shapes: tuple[list[int], str]) -> Call:
    return json.dumps([name, [told(shape, dtype) for shape, dtype in shapes], {"named": {}}])


def told(shape: list[int], dtype: str) -> dict[str, object]:
    return {"tensor": [shape, list(torch.empty(shape, device="meta").stride()), dtype]}


@pytest.fixture
def seen() -> Iterator[list[tuple[int, int, float, float]]]:
    """An operator that notes the address, size, minimum and maximum of its tensor at each call."""
    calls: list[tuple[int, int, float, float]] = []
    library = torch.library.Library("planted", "FRAGMENT")
    library.define("look(Tensor a) -> Tensor")

    def look(a: Tensor) -> Tensor:
        calls.append((a.data_ptr(), a.nbytes, float(a.min()), float(a.max())))
        return a.new_empty(1)

    library.impl("look", look, "CPU")
    yield calls
    library._destroy()


def test_an_operator_is_timed_on_what_it_has_not_just_used(seen: list[tuple[int, int, float, float]]) -> None:
    size = 2 << 20
    (time_s,) = times_s(call("planted.look.default", ([size // 4], "float32")))
    assert time_s
    places = {place for place, *_ in seen}
    assert len(places) * size >= pace.COLD_BYTES
    assert max(places) - min(places) == (len(places) - 1) * size
    # In rotation: none is used again before all others have been.
    rounds = [place for place, *_ in seen][2:]
    assert all(len(set(rounds[first : first + len(places)])) == len(places) for first in range(0, len(places), 7))


@pytest.mark.parametrize("long_s", [pace.LONG_S, 0.0])
def test_operators_find_usual_numbers_whatever_was_done_before(
    seen: list[tuple[int, int, float, float]], monkeypatch: pytest.MonkeyPatch, long_s: float
) -> None:
    monkeypatch.setattr(pace, "LONG_S", long_s)
    tensor = ([1 << 16], "float32")
    looks = call("planted.look.default", tensor)
    assert all(times_s(call("aten.exp_.default", tensor), looks, call("aten.zero_.default", tensor), looks))
    assert all(least > 0 and most < 2 for *_, least, most in seen)


def test_lookups_find_what_exists_and_not_what_stands_for_padding(
    seen: list[tuple[int, int, float, float]],
) -> None:
    """A table of one row has no second row."""
    indices, of_two, of_one = ([8], "int64"), ([2, 4], "float32"), ([1, 4], "float32")
    tables = [call("aten.embedding.default", table, indices) for table in (of_two, of_one)]
    assert all(times_s(call("planted.look.default", indices), *tables))
    assert {(least, most) for *_, least, most in seen} == {(1.0, 1.0)}


def test_types_that_do_not_go_together_are_made_one() -> None:
    # As under amp, where fake tensors have other types than real ones.
    matrix = [64, 64]
    assert all(times_s(call("aten.mm.default", (matrix, "bfloat16"), (matrix, "float32"))))


def test_what_cannot_be_called_has_no_time() -> None:
    fine = call("aten.mm.default", ([4, 4], "float32"), ([4, 4], "float32"))
    odd = call("aten.mm.default", ([4, 4], "float32"), ([5, 4], "float32"))
    first, second, third = times_s(fine, odd, fine)
    assert first and third and second is None
