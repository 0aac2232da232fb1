"""Made-up records, for tests of everything after the measurement."""

from __future__ import annotations

from harness.record import Machine, Measurement, Record, Status

MACHINE = Machine(
    machine_id="m1",
    device="cpu",
    device_name="A CPU",
    gpus=0,
    gpu_memory_bytes=None,
    capability=None,
    driver=None,
    cpu="A CPU",
    cpu_cores=2,
    threads=2,
    memory_bytes=2**34,
    system="Linux 6",
    python="3.11.7",
    packages={"torch": "2.13.0"},
    matmul_flops_per_s={"float32": 1e11},
    published_flops_per_s={},
    published_source=None,
    git_commit="abc",
    git_dirty=False,
    unknown={"gpu": "the run is on the CPU"},
)


def record(label: str, repetition: int, round_times_s: list[float], workload: str = "gpt2/nano") -> Record:
    """An honest record whose rounds are numbered from 0, one step each."""
    return Record(
        run_id="r",
        plan="p",
        workload=workload,
        techniques=label,
        repetition=repetition,
        heat_part=0,
        status=Status.OK,
        reason=None,
        changes=[],
        device="cpu",
        machine_id="m1",
        world_size=1,
        batch=8,
        sequence=128,
        seed=repetition,
        corpus_sha256="c0",
        workload_sha256="w0",
        compute="float32",
        step_flops=1e9,
        parameters=1000,
        started_at="2026-01-01T00:00:00+00:00",
        command="trainpace run",
        measurement=Measurement(
            ready_s=0.3,
            first_step_s=0.2,
            round_index=list(range(len(round_times_s))),
            round_step_times_s=round_times_s,
            round_samples=[8] * len(round_times_s),
            round_tokens=[1024] * len(round_times_s),
            round_data_wait_s=[0.1 * time_s for time_s in round_times_s],
            round_copy_s=[0.2 * time_s for time_s in round_times_s],
        ),
        certificate=None,
    )
