"""A file store for MLflow: `mlflow ui --backend-store-uri FOLDER`. Each run is an experiment, and each arm a run in it.

MLflow's own client pins other versions of packages that are measured here, so its files are written by hand: a
meta.yaml (as JSON, which is valid YAML) for each experiment and run, and a file for each parameter, tag and metric
(https://mlflow.org/docs/latest/self-hosting/architecture/backend-store).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from reports.exports.arms import Arm

FINISHED, ACTIVE = 3, "active"
LONGEST = 5000
"""The most characters of a parameter or tag."""


def write(arms: Sequence[Arm], folder: Path) -> None:
    for run_id in dict.fromkeys(arm.run_id for arm in arms):
        own = [arm for arm in arms if arm.run_id == run_id]
        number = str(int(_digest(run_id)[:15], 16))
        experiment = folder / number
        began = min(map(_began_ms, own))
        _meta(
            experiment,
            {
                "artifact_location": experiment.resolve().as_uri(),
                "creation_time": began,
                "experiment_id": number,
                "last_update_time": began,
                "lifecycle_stage": ACTIVE,
                "name": run_id,
            },
        )
        for arm in own:
            _run(arm, experiment)


def _run(arm: Arm, experiment: Path) -> None:
    number, began = _digest(f"{arm.run_id} {arm.name}")[:32], _began_ms(arm)
    run = experiment / number
    _meta(
        run,
        {
            "artifact_uri": (run / "artifacts").resolve().as_uri(),
            "end_time": began,
            "entry_point_name": "",
            "experiment_id": experiment.name,
            "lifecycle_stage": ACTIVE,
            "run_id": number,
            "run_name": arm.name,
            "run_uuid": number,
            "source_name": "",
            "source_type": 4,
            "source_version": "",
            "start_time": began,
            "status": FINISHED,
            "tags": [],
            "user_id": "trainpace",
        },
    )
    (run / "artifacts").mkdir()
    _files(run / "params", {name: str(value)[:LONGEST] for name, value in arm.config.items()})
    _files(run / "tags", {"mlflow.runName": arm.name[:LONGEST]})
    metrics = {name: f"{began} {value!r} 0\n" for name, value in arm.metrics.items()}
    for process, times_s in arm.step_times_s.items():
        lines = (f"{began} {time_s!r} {index}\n" for index, time_s in enumerate(times_s))
        metrics[f"step_times_s/{process}"] = "".join(lines)
    _files(run / "metrics", metrics)


def _meta(folder: Path, data: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    (folder / "meta.yaml").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _files(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def _began_ms(arm: Arm) -> int:
    return int(1000 * datetime.fromisoformat(arm.started_at).timestamp())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
