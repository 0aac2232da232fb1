"""Users' workloads are measured correctly: no wrapper that never ran is ranked, and no honest arm is refused."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest

import tests.planted  # noqa: F401  the sweep composes the planted techniques in this process too
from bench.corpus import Corpus
from bench.spec import WorkloadSpec
from harness.preparation.probing import probe_workload
from harness.record import Record, Status
from reports.text.terminal import plain
from reports.wording.advice import warnings
from reports.wording.view import arm_name
from results.compare import compare
from tests.conftest import LEAST

Run = Callable[..., tuple[Any, list[Record]]]

FILE = "tests/brought.py"


def measured(sweep: Run, name: str, *techniques: str) -> tuple[Any, dict[str, Record]]:
    prepared, records = sweep(
        *((technique,) for technique in techniques), models=(f"{FILE}:{name}",), shape={}, protocol=LEAST
    )
    return prepared, {record.techniques: record for record in records if not record.copy}


def probed(corpus: Corpus, name: str) -> dict[str, Any]:
    found: dict[str, Any] = probe_workload(
        dataclasses.asdict(WorkloadSpec(model=f"{FILE}:{name}")), dataclasses.asdict(corpus)
    )
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", ["training_step", "training_step_unwrapped", "part_called"])
def test_what_wraps_a_model_is_called_whatever_the_loss_calls(sweep: Run, name: str) -> None:
    _, found = measured(sweep, name, "ddp_2", "compile")
    assert {label: record.reason for label, record in found.items()} == dict.fromkeys(("fp32", "ddp_2", "compile"))
    for record in found.values():
        assert record.certificate is not None and record.certificate.samples_per_update == 16.0
    assert found["compile"].measurement.compile_s and not found["compile"].certificate.compiled_nothing  # type: ignore[union-attr]
    assert found["ddp_2"].certificate.gradient_spread == pytest.approx(0.0, abs=1e-6)  # type: ignore[union-attr]


def test_the_rank_that_failed_is_heard_and_not_the_one_it_let_down(sweep: Run) -> None:
    _, found = measured(sweep, "one_is_truncated", "ddp_2", "workers_2")
    assert {record.status for record in found.values()} == {Status.CRASHED}
    assert {record.reason for record in found.values()} == {"OSError: image /data/40.jpg is truncated"}


def test_a_rank_that_is_ended_for_anothers_sake_is_not_the_one_that_is_heard(sweep: Run) -> None:
    _, records = sweep(("planted_second_rank_refuses",))
    (found,) = [record for record in records if record.techniques != "fp32"]
    assert (found.status, found.reason) == (Status.UNSUPPORTED, "planted: the second rank refuses")


@pytest.mark.parametrize("name", ["planted_idle_compile", "planted_idle_ranks"])
def test_a_wrapper_that_is_never_called_is_no_technique(sweep: Run, name: str) -> None:
    _, found = measured(sweep, "training_step", name)
    assert found[name].status is Status.UNEQUAL_WORK
    assert "nothing was compiled" in str(found[name].reason) or "ranks' gradients differ" in str(found[name].reason)


@pytest.mark.parametrize("name", ["draws_by_numpy", pytest.param("draws_by_python", marks=pytest.mark.long)])
def test_every_generator_is_seeded(sweep: Run, name: str) -> None:
    _, found = measured(sweep, name, "adamw_fused", "accumulate_2", "workers_2", "ddp_2")
    assert {record.status for record in found.values()} == {Status.OK}
    baseline = found["fp32"].certificate
    assert baseline is not None and baseline.repeated_losses == baseline.first_losses
    for record in found.values():
        assert record.certificate is not None and record.certificate.losses_unknown is None


@pytest.mark.parametrize(
    ("name", "word"), [("draws_by_the_clock", "no seed controls"), ("draws_in_forward", "forward pass draws")]
)
def test_what_cannot_be_seeded_is_told(sweep: Run, name: str, word: str) -> None:
    # Each rank draws from the seed for its own part of the batch.
    prepared, found = measured(sweep, name, "ddp_2")
    record = found["ddp_2"]
    assert record.status is Status.OK and record.certificate is not None
    assert word in str(record.certificate.losses_unknown)
    records = list(found.values())
    assert any(word in warning.text for warning in warnings(compare(records, prepared.machine), records))


@pytest.mark.parametrize("name", ["accumulate_2", "accumulate_4", "ddp_2"])
def test_parts_of_a_batch_count_by_what_is_trained_in_them(sweep: Run, name: str) -> None:
    _, found = measured(sweep, "prompts_masked", name)
    baseline, other = found["fp32"].certificate, found[name].certificate
    assert found[name].reason is None
    assert baseline is not None and other is not None and baseline.first_losses and other.first_losses
    assert other.gradient_norm == pytest.approx(baseline.gradient_norm, rel=1e-4)
    assert other.first_losses == pytest.approx(baseline.first_losses, rel=1e-4)


def test_another_gradient_is_other_work_though_losses_hardly_differ(sweep: Run) -> None:
    _, found = measured(sweep, "prompts_masked", "planted_equal_weights")
    assert found["planted_equal_weights"].status is Status.UNEQUAL_WORK
    assert "first gradient" in str(found["planted_equal_weights"].reason)


@pytest.mark.parametrize("name", ["packed_boolean", "packed_additive", "packed_infinite"])
def test_a_mask_of_a_row_for_each_token_counts_tokens(sweep: Run, name: str) -> None:
    _, found = measured(sweep, name, "accumulate_2")
    for record in found.values():
        assert record.status is Status.OK
        assert set(record.measurement.round_tokens) == {8 * 32}
        assert record.certificate is not None
        assert (record.certificate.tokens_per_update, record.certificate.padded_tokens_per_update) == (8 * 32, 0)


def test_samples_are_counted_along_whatever_dimension(sweep: Run) -> None:
    _, found = measured(sweep, "time_first", "accumulate_2")
    for record in found.values():
        assert record.status is Status.OK
        assert set(record.measurement.round_samples) == {16}
        assert record.certificate is not None and record.certificate.samples_per_update == 16.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [("small_loss", Status.OK), ("small_sum", Status.UNEQUAL_WORK), ("large_sum", Status.UNEQUAL_WORK)],
)
def test_losses_are_compared_by_what_they_are(sweep: Run, name: str, expected: Status) -> None:
    _, found = measured(sweep, name, "accumulate_2", "planted_wrong_numbers")
    assert found["accumulate_2"].status is expected
    assert found["planted_wrong_numbers"].status is Status.UNEQUAL_WORK


def test_a_baseline_goes_by_its_own_number_format(sweep: Run) -> None:
    prepared, found = measured(sweep, "comes_in_bfloat16", "pure_bf16", "adamw_fused")
    assert found["pure_bf16"].status is Status.UNSUPPORTED
    assert "pure_bf16 changes nothing: the model's weights are bfloat16 already" in str(found["pure_bf16"].reason)
    assert found["fp32"].compute == found["adamw_fused"].compute == "bfloat16"
    rows = compare(list(found.values()), prepared.machine)
    baseline = next(row for row in rows if row.techniques == "fp32")
    assert arm_name(baseline) == "unmodified bfloat16"
    assert "unmodified bfloat16" in plain(rows)
    # Other programs may have disturbed the only repetition; then its pace is unknown.
    if baseline.step_time_s is not None:
        rate = (found["fp32"].step_flops or 0.0) / baseline.step_time_s
        assert baseline.matmul_share == pytest.approx(rate / prepared.machine.matmul_flops_per_s["bfloat16"])


@pytest.mark.parametrize("name", ["across_the_batch", "default_cache", "carried"])
def test_the_work_of_ordinary_models_is_counted(corpus: Corpus, name: str) -> None:
    found = probed(corpus, name)
    assert found["step_flops"] > 0 and found["parameters"] > 0 and found["calls_model"]


def test_what_is_computed_again_is_no_work(corpus: Corpus) -> None:
    assert probed(corpus, "checkpointed")["step_flops"] == probed(corpus, "default_cache")["step_flops"]


def test_the_work_of_a_model_without_products_is_unknown(corpus: Corpus) -> None:
    found = probed(corpus, "without_products")
    assert found["step_flops"] is None and found["parameters"] == 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [("training_step", False), ("training_step_unwrapped", False), ("part_called", False), ("time_first", True)],
)
def test_it_is_found_out_whether_a_loss_calls_the_model(corpus: Corpus, name: str, expected: bool) -> None:
    assert probed(corpus, name)["calls_model"] is expected


def test_a_workload_is_known_by_its_files(corpus: Corpus) -> None:
    names = ("training_step", "time_first", "small_loss")
    found = [probed(corpus, name)["sha256"] for name in names]
    assert found == [probed(corpus, name)["sha256"] for name in names]
    assert all(one != other for one, other in itertools.combinations(found, 2))
