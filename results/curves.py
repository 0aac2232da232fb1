"""Complete trainings on disk: one immutable parquet part each, next to the records of timings.

A part has one row: the request, and list columns with numbers of updates and the loss on held-out samples after each.
Read a whole folder with `pandas.read_parquet("FOLDER/trainings")`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.learning.curve import Training

SCHEMA = pa.schema(
    [
        ("purpose", pa.string()),
        ("label", pa.string()),
        ("techniques", pa.list_(pa.string())),
        ("seed", pa.int64()),
        ("rate", pa.float64()),
        ("asked_updates", pa.int64()),
        ("on_course", pa.bool_()),
        ("until_loss", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("updates", pa.list_(pa.int64())),
        ("held_out_losses", pa.list_(pa.float64())),
        ("train_losses", pa.list_(pa.float64())),
        ("tokens_per_update", pa.float64()),
        ("samples_per_update", pa.float64()),
        ("seen_share", pa.float64()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("updates_s", pa.float64()),
        ("other_s", pa.float64()),
    ]
)


def write(training: Training, folder: Path, purpose: str) -> None:
    """Write one training below `folder`/trainings, atomically."""
    (folder / "trainings").mkdir(parents=True, exist_ok=True)
    row = training.to_json()
    asked = row.pop("asked")
    row |= {
        "purpose": purpose,
        "label": training.asked.label,
        "techniques": list(asked["techniques"]),
        "seed": asked["seed"],
        "rate": asked["rate"],
        "asked_updates": asked["updates"],
        "on_course": asked["on_course"],
        "until_loss": asked["until_loss"],
    }
    number = len(list((folder / "trainings").glob("part-*.parquet")))
    target = folder / "trainings" / f"part-{number:05d}.parquet"
    temporary = target.with_name(f".{target.name}")
    with open(temporary, "wb") as file:
        pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, target)


def read(folder: Path, purpose: str) -> list[Training]:
    """The trainings of that purpose, in the order in which they ended."""
    parts = sorted((folder / "trainings").glob("part-*.parquet"))
    rows: list[dict[str, Any]] = [row for part in parts for row in pq.read_table(part, schema=SCHEMA).to_pylist()]
    return [_training(row) for row in rows if row["purpose"] == purpose]


def _training(row: dict[str, Any]) -> Training:
    names = ("techniques", "seed", "rate", "until_loss")
    asked = {name: row.pop(name) for name in names} | {"updates": row.pop("asked_updates")}
    asked["on_course"] = bool(row.pop("on_course"))  # Null in earlier files.
    kept = {name: value for name, value in row.items() if name not in ("purpose", "label")}
    kept["scores"] = dict(kept["scores"])
    return Training.from_json(kept | {"asked": asked})
