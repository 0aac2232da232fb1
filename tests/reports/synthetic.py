"""Made-up records of a run, for tests of what only shows them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

from bench.spec import Plan, WorkloadSpec
from harness.record import Machine, Measurement, Record, Status, WorkCertificate
from reports.charts.chart import Chart
from reports.wording import view
from results import store
from results.compare import Comparison

Draw = Callable[[Sequence[Comparison], str], Chart | None]

HOSTILE = "<script>alert('x')</script>"

TIMES = {
    # Step time of each technique as a share of the baseline's.
    "fp32": 1.0,
    "amp_bf16": 0.81,
    "pure_bf16": 0.76,
    "compile": 0.84,
    "amp_bf16+compile": 0.66,
    "adamw_fused": 0.95,
    "adamw_foreach": 0.995,
    "sgd_momentum": 0.90,
    "adafactor": 1.34,
    "adamax": 1.01,
    "checkpoint_activations": 1.29,
    "accumulate_4": 1.12,
    "qat_int8": 2.4,
    "prune_heads_50": 0.79,
    "amp_bf16+compile+adamw_fused": 0.64,
}

MEMORY = {"checkpoint_activations": 0.55, "amp_bf16": 0.8, "pure_bf16": 0.55, "sgd_momentum": 0.8, "accumulate_4": 0.5}

FAILED = {
    "tf32": (Status.UNSUPPORTED, "tf32 needs an Ampere or newer GPU; this run is on cpu"),
    "fp8_tensorwise": (Status.UNSUPPORTED, "fp8_tensorwise needs compute capability 8.9; this run is on cpu"),
    "ddp_2": (Status.OOM, "RuntimeError: can't allocate memory: you tried to allocate 4831838208 bytes"),
    "amp_fp16": (Status.DIVERGED, "the loss is nan at step 7"),
    "prune_magnitude_50": (Status.UNEQUAL_WORK, "trained parameters differ: 412,032 against 824,064"),
}


def machine(device: str = "cpu") -> Machine:
    gpu = device == "cuda"
    return Machine(
        machine_id="4f1c0a9be213",
        device=device,
        device_name="NVIDIA H100 80GB HBM3" if gpu else "AMD EPYC 7B13",
        gpus=int(gpu),
        gpu_memory_bytes=85_017_493_504 if gpu else None,
        capability=(9, 0) if gpu else None,
        driver="580.95.05, CUDA 13.0" if gpu else None,
        cuda="13.0" if gpu else None,
        cpu="AMD EPYC 7B13",
        cpu_cores=2,
        threads=2,
        memory_bytes=8_318_521_344,
        system="Linux 6.1.0",
        python="3.11.9",
        packages={"trainpace": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        matmul_flops_per_s={"float32": 1.41e11, "bfloat16": 2.2e10},
        memory_bytes_per_s={"memory": 2.1e10, "caches": 9.4e10},
        published_flops_per_s={"float32": 66.9e12, "bfloat16": 989.4e12} if gpu else {},
        published_source="https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper" if gpu else None,
        git_commit=None,
        git_dirty=None,
        unknown={
            "git_commit": "the run was not started in a git checkout",
            **({} if gpu else {"mfu": "no published peak on file for AMD EPYC 7B13", "gpu": "the run is on the CPU"}),
        },
    )


def _measurement(techniques: str, step_s: float, rng: random.Random, device: str) -> Measurement:
    def times(count: int, spread: float = 0.03) -> list[float]:
        return [step_s * rng.lognormvariate(0, spread) for _ in range(count)]

    compiles = "compile" in techniques
    first_s = step_s * 2.5 + (14.0 if compiles else 0.02) * rng.lognormvariate(0, 0.1)
    samples = 6
    gpu = device == "cuda"
    return Measurement(
        build_s=0.2,
        ready_s=first_s + 0.3,
        first_step_s=first_s,
        compile_s=first_s * 0.9 if compiles else None,
        warmup_step_times_s=[first_s, *(time_s * 1.15 for time_s in times(3)), *times(5)],
        warmup_steady=techniques != "adafactor",
        sustained_s=step_s * 10.2 if gpu else None,
        sustained_step_times_s=times(10) if gpu else [],
        sustained_tokens=80 * 128 if gpu else None,
        round_index=[index for index in range(6) for _ in range(3)],
        round_step_times_s=times(18),
        round_host_times_s=times(6),
        round_samples=[8] * 18,
        round_tokens=[8 * 128] * 18,
        round_data_wait_s=[step_s * 0.003] * 18,
        losses=[9.1, 9.0],
        peak_memory_bytes=int(
            600e6 * MEMORY.get(techniques.split("+", maxsplit=1)[0], 1.0) * rng.lognormvariate(0, 0.02)
        ),
        sample_t_s=[0.1 * (index + 1) for index in range(samples)],
        sample_cpu_pct=[rng.uniform(88, 97) for _ in range(samples)],
        sample_foreign_cpu_pct=[rng.uniform(0, 9 if techniques == "compile" else 3) for _ in range(samples)],
        sample_steal_pct=[0.0] * samples,
        sample_gpu_util_pct=[rng.uniform(70, 99) for _ in range(samples)] if gpu else [],
        throttle_reasons=(["software power cap"] if compiles else []) if gpu else None,
        sustained_energy_j=180.0 * step_s if gpu else None,
        unknown=[] if gpu else ["GPU figures are unknown: the run is on the CPU"],
    )


def record(
    techniques: str,
    repetition: int,
    *,
    workload: str = "gpt2/tiny",
    step_s: float = 0.0584,
    status: Status = Status.OK,
    reason: str | None = None,
    device: str = "cpu",
) -> Record:
    rng = random.Random(f"{workload} {techniques} {repetition}")
    return Record(
        run_id="20261024-091502-quick",
        plan="quick",
        workload=workload,
        techniques=techniques,
        repetition=repetition,
        heat_part=0,
        status=status,
        reason=reason,
        changes=["architecture"] if "prune" in techniques else [],
        device=device,
        machine_id="4f1c0a9be213",
        world_size=1,
        batch=8,
        sequence=128,
        seed=repetition,
        corpus_sha256="c0ffee" * 10,
        workload_sha256="decade" * 10,
        compute="bfloat16" if "bf16" in techniques else "float32",
        step_flops=5.1e9,
        parameters=824_064,
        started_at=f"2026-10-24T09:{15 + repetition}:02+00:00",
        command=f"trainpace run --model {workload} --technique {techniques} --device {device} --batch 8 --sequence 128",
        measurement=_measurement(techniques, step_s, rng, device) if status is Status.OK else Measurement(),
        certificate=None
        if status is not Status.OK
        else WorkCertificate(
            parameters=824_064,
            trained_parameters=824_064,
            updates=31,
            skipped_updates=0,
            tensors=28,
            moved_tensors=28,
            movement_rms=1e-4,
            weight_dtypes=["float32"],
            state_dtypes=["float32"],
            first_losses=[9.21, 9.08, 8.97 + rng.gauss(0, 0.001)],
        ),
    )


def run(workload: str = "gpt2/tiny", repetitions: int = 3, device: str = "cpu", step_s: float = 0.0584) -> list[Record]:
    """The records of one heat: the techniques of TIMES, and those of FAILED."""
    found = []
    for repetition in range(repetitions):
        shared = random.Random(repetition).lognormvariate(0, 0.02)
        for techniques, share in TIMES.items():
            own = random.Random(f"{workload}{techniques}{repetition}").lognormvariate(0, 0.008)
            took_s = step_s * share * shared * own
            found.append(record(techniques, repetition, workload=workload, step_s=took_s, device=device))
        for techniques, (status, reason) in FAILED.items():
            how = {"status": status, "reason": reason, "device": device}
            found.append(record(techniques, repetition, workload=workload, **how))  # type: ignore[arg-type]
    return found


PLAN = Plan(name="quick", workloads=(WorkloadSpec(model="gpt2/tiny"),), compositions=(("compile",),))


def keep(folder: Path) -> Path:
    """The records of one heat, stored in a folder like those of a run."""
    for made in run():
        store.write(made, folder, machine=machine(), plan=PLAN)
    return folder


class Page(HTMLParser):
    """Parses a page strictly: elements must be closed in order. Keeps what the tests check."""

    VOID = frozenset({"meta", "input", "br", "hr", "img", "link", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.classes: list[str] = []
        self.cells: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found[key] or "" for key in ("src", "href", "xlink:href", "srcset", "action") if key in found]
        self.scripts += [found] if tag == "script" else []
        self.classes += (found.get("class") or "").split()
        if tag == "td" and "data-value" in found:
            self.cells.append(found)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td" and self.cells:
            self.cells[-1]["text"] = self.cells[-1].get("text") or data.strip()
        self.texts.append(data)


def ranked(comparisons: list[Comparison], workload: str) -> list[Comparison]:
    return [item for item in comparisons if item.workload == workload and view.is_ranked(item)]


def find(comparisons: list[Comparison], techniques: str) -> Comparison:
    return next(item for item in comparisons if item.techniques == techniques)
