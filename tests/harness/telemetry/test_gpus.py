"""What NVML reports about GPUs, and how missing answers are handled, with the real binding and our own library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pynvml
import pytest

from harness.telemetry.gpus import NOBODY, OF_THE_CHIP, POLICIES, UNNAMED_SLICE, Gpus
from tests.nvml import FIRST, SECOND, SLICE, ask, build, fail, recover, show, violate

CODES = sorted({code for name, code in vars(pynvml).items() if name.startswith("NVML_ERROR_")})
NEW_CODE = 77
"""An error code that a later driver may introduce."""

CALLS = {
    # Each call about a device, and the readings that come from its answer.
    "nvmlDeviceGetUtilizationRates": {"gpu_util_pct"},
    "nvmlDeviceGetMemoryInfo": {"gpu_memory_bytes"},
    "nvmlDeviceGetPowerUsage": {"gpu_power_w"},
    "nvmlDeviceGetClockInfo": {"gpu_clock_hz"},
    "nvmlDeviceGetTemperature": {"gpu_temperature_c"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energies_j"},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttle_reasons"},
    "nvmlDeviceGetViolationStatus": {"throttled_s", *POLICIES},
    "nvmlDeviceGetComputeRunningProcesses_v3": {"processes"},
}
OF_DEVICES = set().union(*CALLS.values())

REPLACED = {
    "nvmlDeviceGetTemperature": "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetCurrentClocksEventReasons": "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetComputeRunningProcesses_v3": "nvmlDeviceGetComputeRunningProcesses_v2",
}
"""The call that is used if a driver lacks the first one."""


def told(gpus: Gpus) -> dict[str, Any]:
    """All readings of the devices, by name."""
    return {
        **gpus.sample(),
        "throttle_reasons": gpus.throttle_reasons(),
        "energies_j": gpus.energies_j(),
        "processes": gpus.processes(),
        "throttled_s": gpus.throttled_s(),
        **gpus.violations_s(),
    }


def told_of(uuids: Sequence[str]) -> dict[str, Any]:
    return told(Gpus("cuda", uuids))


def known(found: dict[str, Any]) -> set[str]:
    return {name for name, value in found.items() if not isinstance(value, str)}


def told_of_a_hot_chip() -> dict[str, Any]:
    show(0, clock_reasons=0x1 | 0x4 | 0x40)
    for policy in range(12):
        violate(0, policy, (policy + 1) * 250_000_000)
    return told_of([FIRST])


def test_each_figure_is_in_its_unit(driver: Path) -> None:
    found = ask(driver, told_of_a_hot_chip)
    held_s = {name: found.pop(name) for name in POLICIES}
    assert held_s == pytest.approx(
        {
            "power": 0.25,
            "thermal": 0.5,
            "sync boost": 0.75,
            "board limit": 1.0,
            "low utilization": 1.25,
            "reliability": 1.5,
            "application clocks": 2.75,
            "base clocks": 3.0,
        }
    )
    assert found.pop("throttled_s") == held_s["thermal"]
    assert found == {
        "gpu_util_pct": 70.0,
        "gpu_memory_bytes": 1e9,
        "gpu_power_w": 150.5,
        "gpu_clock_hz": 1.41e9,
        "gpu_temperature_c": 45.0,
        # Being idle (bit 1) does not hold the chip back.
        "throttle_reasons": {"software power cap", "hardware thermal slowdown"},
        "energies_j": [5.0],
        "processes": 1,
    }


def test_several_devices_are_told_of_together(driver: Path) -> None:
    found = ask(driver, told_of, [FIRST, SECOND])
    assert {name: found[name] for name in OF_DEVICES - set(POLICIES)} == {
        "gpu_util_pct": 50.0,
        "gpu_memory_bytes": 3e9,
        "gpu_power_w": 401.0,
        "gpu_clock_hz": 1.695e9,
        "gpu_temperature_c": 55.0,
        "throttle_reasons": set(),
        "energies_j": [5.0, 9.0],
        "processes": 4,
        "throttled_s": 0.0,
    }


def told_of_the_first(uuids: Sequence[str]) -> dict[str, Any]:
    return told(Gpus("cuda", uuids).first(1))


@pytest.mark.parametrize("variables", [{"CUDA_VISIBLE_DEVICES": "1,0"}, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}])
def test_a_device_is_found_whatever_its_number(
    driver: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ask(driver, told_of_the_first, [SECOND, FIRST])["gpu_power_w"] == 250.5
    assert ask(driver, told_of_the_first, [FIRST, SECOND])["gpu_power_w"] == 150.5


def told_with_each_failure(calls: Sequence[str], codes: Sequence[int]) -> dict[tuple[str, int], tuple[Any, str]]:
    """By call and code, the readings of both GPUs when only the second one fails, and the text for the code."""
    found = {}
    for call in calls:
        for code in codes:
            fail(call, code, device=1)
            found[call, code] = told_of([FIRST, SECOND]), str(pynvml.NVMLError(code))
            recover()
    return found


def test_whatever_fails_and_however_the_figure_is_unknown_and_no_other(driver: Path) -> None:
    found = ask(driver, told_with_each_failure, list(CALLS), [*CODES, NEW_CODE])
    assert len(CODES) > 30 and len(found) == len(CALLS) * (len(CODES) + 1)
    for (call, code), (values, words) in found.items():
        if call in REPLACED and code == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            assert known(values) == OF_DEVICES
            continue
        assert known(values) == OF_DEVICES - CALLS[call], (call, code)
        assert {values[name] for name in CALLS[call]} == {f"NVML says {words}"}


def test_a_device_that_is_not_found_tells_nothing_and_says_why(driver: Path) -> None:
    found = ask(driver, told_with_each_failure, ["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetMigMode"], CODES)
    for (call, code), (values, words) in found.items():
        if call == "nvmlDeviceGetMigMode" and code in (3, 13):
            # The chip cannot be split, or the driver is too old for that.
            assert known(values) == OF_DEVICES
            continue
        assert set(values.values()) == {f"NVML says {words}"}, (call, code)


def told_after_each_failure(codes: Sequence[int]) -> list[tuple[dict[str, Any], str]]:
    """The readings of GPUs that were found, once every call about one of them fails."""
    gpus = Gpus("cuda", [FIRST, SECOND])
    found = []
    for code in codes:
        fail("*", code, device=1)
        found.append((told(gpus), str(pynvml.NVMLError(code))))
        recover()
    return found


def test_of_a_device_that_is_lost_later_nothing_is_a_number(driver: Path) -> None:
    for values, words in ask(driver, told_after_each_failure, [*CODES, NEW_CODE]):
        assert set(values.values()) == {f"NVML says {words}"}


def test_a_lost_chip_leaves_the_others_known(driver: Path) -> None:
    stranger = "00000000-0000-0000-0000-000000000000"
    assert set(ask(driver, told_of, [FIRST, stranger]).values()) == {"NVML says Not Found"}
    assert known(ask(driver, told_of_the_first, [FIRST, stranger])) == OF_DEVICES
    assert set(ask(driver, told_of, []).values()) == {"torch gave no UUID by which to find the GPU"}


@pytest.mark.parametrize("call", [*CALLS, "nvmlDeviceGetMigMode"])
def test_a_driver_without_a_function_lacks_its_figures_or_has_another(tmp_path: Path, call: str) -> None:
    found = ask(build(tmp_path, without=[call]), told_of, [FIRST])
    lost = set() if call in REPLACED else CALLS.get(call, set())
    assert known(found) == OF_DEVICES - lost
    assert {found[name] for name in lost} <= {"NVML says Function Not Found"}
    if call in REPLACED:
        found = ask(build(tmp_path, without=[call, REPLACED[call]]), told_of, [FIRST])
        assert {found[name] for name in CALLS[call]} == {"NVML says Function Not Found"}


def test_of_a_slice_nothing_is_told_that_is_the_chips(driver: Path) -> None:
    found = ask(driver, told_of, [SLICE])
    assert {name: found.pop(name) for name in ("gpu_memory_bytes", "processes")} == {
        "gpu_memory_bytes": 5e8,
        "processes": 1,
    }
    assert set(found.values()) == {OF_THE_CHIP}


def told_of_a_split_chip() -> dict[str, Any]:
    show(1, mig_mode=1)
    return told_of([SECOND])


def test_of_a_split_chip_nothing_is_told(driver: Path) -> None:
    assert set(ask(driver, told_of_a_split_chip).values()) == {UNNAMED_SLICE}


def told_of_a_container() -> dict[str, Any]:
    show(0, processes=0)
    return told_of([FIRST, SECOND])


def test_where_processes_are_hidden_their_number_is_unknown(driver: Path) -> None:
    assert ask(driver, told_of_a_container)["processes"] == NOBODY


def opened_with_each_failure(codes: Sequence[int]) -> list[tuple[str | None, dict[str, Any], tuple[Any, Any], str]]:
    found = []
    for code in codes:
        fail("nvmlInitWithFlags", code)
        gpus = Gpus("cuda", [FIRST])
        found.append((gpus.reason, told(gpus), gpus.driver(), str(pynvml.NVMLError(code))))
        recover()
    return found


def test_where_nvml_cannot_be_opened_all_is_unknown(driver: Path) -> None:
    for reason, values, version, words in ask(driver, opened_with_each_failure, [*CODES, NEW_CODE]):
        assert reason == f"NVML says {words}"
        assert set(values.values()) == {reason}
        assert version == (None, reason)


def driver_of(device: str) -> tuple[str | None, str | None]:
    return Gpus(device, ()).driver()


def test_without_a_library_all_is_unknown(tmp_path: Path) -> None:
    # The loader stops at an invalid library, and does not go on to that of a real driver.
    (tmp_path / "libnvidia-ml.so.1").touch()
    missing = "NVML says NVML Shared Library Not Found"
    assert set(ask(tmp_path, told_of, [FIRST]).values()) == {missing}
    assert ask(tmp_path, driver_of, "cuda") == (None, missing)
    assert set(told(Gpus("cpu", ())).values()) == {"the run is on the CPU"}


def drivers_with_each_failure(call: str, codes: Sequence[int]) -> list[tuple[str | None, str | None, str]]:
    found = []
    for code in codes:
        fail(call, code)
        found.append((*driver_of("cuda"), str(pynvml.NVMLError(code))))
        recover()
    return found


def test_the_driver_is_told_with_the_cuda_that_it_supports(driver: Path, tmp_path: Path) -> None:
    assert ask(driver, driver_of, "cuda") == ("580.95.05, CUDA 13.0", None)
    for version, reason, words in ask(driver, drivers_with_each_failure, "nvmlSystemGetDriverVersion", CODES):
        assert (version, reason) == (None, f"NVML says {words}")
    others = [code for code in CODES if code != pynvml.NVML_ERROR_FUNCTION_NOT_FOUND]
    for version, reason, words in ask(driver, drivers_with_each_failure, "nvmlSystemGetCudaDriverVersion_v2", others):
        assert (version, reason) == ("580.95.05", f"which CUDA it supports: NVML says {words}")
    older = build(tmp_path, without=["nvmlSystemGetCudaDriverVersion_v2"])
    assert ask(older, driver_of, "cuda") == ("580.95.05, CUDA 12.8", None)


def findings(code: int) -> dict[str, tuple[str, str]]:
    """The doctor's findings on a GPU whose clocks each policy has held back by its number in seconds, and which then
    fails with this code."""
    from harness.preparation.doctor import gpu_findings

    gpus = Gpus("cuda", [FIRST])
    for policy in range(12):
        violate(0, policy, policy * 10**9)
    if code:
        fail("*", code)
    return {item.what: (item.verdict, item.detail) for item in gpu_findings(gpus)}


@pytest.mark.long
def test_a_doctor_names_what_is_unknown_and_shows_every_counter(driver: Path) -> None:
    found = ask(driver, findings, pynvml.NVML_SUCCESS)
    assert found["GPU figures"] == ("yes", "NVML answers")
    assert found["GPU energy"] == ("yes", "the chips' energy counters")
    assert found["GPU heat"][0] == "yes"
    assert "thermal 1.000 s" in found["GPU heat"][1] and "reliability 5.000 s" in found["GPU heat"][1]
    blind = ask(driver, findings, pynvml.NVML_ERROR_TIMEOUT)
    assert [verdict for verdict, _ in blind.values()] == ["no"] * 3
    assert "gpu_power_w: NVML says Timeout" in blind["GPU figures"][1]
    assert blind["GPU energy"][1] == "NVML says Timeout"
    assert "thermal unknown (NVML says Timeout)" in blind["GPU heat"][1]
