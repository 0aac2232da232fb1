"""Text and labels from users' data: JSON lines, CSV, parquet, folders saved by `datasets`, a cached data set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from bench.classification import split
from bench.corpus import open_corpus, read_documents
from bench.resolve import resolve
from bench.spec import Phase, WorkloadSpec
from harness.record import Record, Status
from tests import ROOT
from tests.conftest import LEAST

LABELS = ["negative", "neutral", "positive"]
ROWS: dict[str, list[Any]] = {
    "review": [f"row {index} says that it is {LABELS[index % 3]}, {'and ' * (index % 7)}so on" for index in range(120)],
    "stars": [index % 3 for index in range(120)],
}


@pytest.fixture(scope="module")
def table() -> datasets.Dataset:
    features = datasets.Features({"review": datasets.Value("string"), "stars": datasets.ClassLabel(names=LABELS)})
    return datasets.Dataset.from_dict(ROWS, features=features)


def save(table: datasets.Dataset, kind: str, folder: Path) -> str:
    path = folder / f"table{kind}"
    if kind == ".jsonl":
        table.to_json(path)
    elif kind in (".csv", ".tsv"):
        table.to_csv(path, sep="\t" if kind == ".tsv" else ",")
    elif kind == ".parquet":
        table.to_parquet(path)
    elif kind == " saved":
        table.save_to_disk(str(path))
    else:
        datasets.DatasetDict({"train": table, "test": table.select(range(3))}).save_to_disk(str(path))
    return str(path)


KINDS = [".jsonl", ".csv", ".tsv", ".parquet", " saved", " split"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_is_the_same_text(table: datasets.Dataset, kind: str, tmp_path: Path) -> None:
    path = save(table, kind, tmp_path)
    # The only column of text needs no name.
    found = list(read_documents(path))
    assert [document.text.decode() for document in found] == ROWS["review"]
    labelled = list(read_documents(path, "review", "stars"))
    names = LABELS if kind not in (".jsonl", ".csv", ".tsv") else ["0", "1", "2"]
    assert [document.section for document in labelled] == [names[label] for label in ROWS["stars"]]
    assert open_corpus(path).sha256 == open_corpus(path, "review").sha256 != open_corpus(path, None, "stars").sha256


def test_rows_are_told_apart_by_their_labels(table: datasets.Dataset, tmp_path: Path) -> None:
    path = save(table, ".parquet", tmp_path)
    spec = WorkloadSpec(
        model="bert/nano", phase=Phase.FINETUNE, sequence=32, corpus=path, text_column="review", label_column="stars"
    )
    workload = resolve(spec, open_corpus(*spec.source))
    assert workload.text is not None
    found = split(workload.text)
    assert found.labels == LABELS and (len(found.training), len(found.held_out)) == (108, 12)
    rows = [ROWS["review"][index] for index in range(120) if index % 10 != 9]
    for index in (0, 1, 50, 107):
        sample = found.training[index]
        text = rows[index].encode()[:32]
        assert bytes(sample["input_ids"][: len(text)].astype(np.uint8)) == text
        assert sample["attention_mask"].sum() == min(32, len(text) + 1)
        assert LABELS[int(sample["labels"])] in rows[index]


@pytest.mark.long
def test_a_table_is_fine_tuned_on(
    sweep: Callable[..., tuple[Any, list[Record]]], table: datasets.Dataset, tmp_path: Path
) -> None:
    path = save(table, ".jsonl", tmp_path)
    shape = {"batch": 8, "sequence": 64, "text_column": "review", "label_column": "stars"}
    _, records = sweep(
        ("accumulate_2",), models=("bert/nano",), shape=shape, corpus=path, phase=Phase.FINETUNE, protocol=LEAST
    )
    for record in records:
        assert record.status is Status.OK and record.certificate is not None
        assert record.certificate.accuracy is not None and record.certificate.scored_samples == 12
        # Padding does not count as work: rows have several lengths.
        assert max(record.measurement.round_tokens) < 8 * 64


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (("reviews", None), "--text-column 'reviews' is not a column"),
        (("review", "star"), "--label-column 'star' is not a column of"),
        ((None, "stars"), "it has"),
    ],
)
def test_a_column_that_is_not_there_is_told(
    table: datasets.Dataset, tmp_path: Path, columns: tuple[str | None, str | None], says: str
) -> None:
    path = save(table.rename_column("stars", "grade"), ".csv", tmp_path)
    with pytest.raises(ValueError, match=says):
        list(read_documents(path, *columns))


def test_two_columns_of_text_are_not_guessed_between(tmp_path: Path) -> None:
    two = datasets.Dataset.from_dict({"question": ["a", "b"], "answer": ["c", "d"]})
    path = save(two, ".jsonl", tmp_path)
    with pytest.raises(ValueError, match="2 columns of text among question, answer: say which with --text-column"):
        list(read_documents(path))


@pytest.mark.parametrize("option", [("text", None), (None, "text")])
def test_text_as_it_is_has_no_columns(text_folder: Path, option: tuple[str | None, str | None]) -> None:
    with pytest.raises(ValueError, match=r"-column 'text' needs a table"):
        list(read_documents(str(text_folder), *option))


def test_broken_tables_and_unknown_names_end_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    for path in (str(tmp_path / "bad.parquet"), str(tmp_path / "nowhere")):
        with pytest.raises(ValueError, match=r"^data ") as caught:
            list(read_documents(path))
        assert "\n" not in str(caught.value)


def test_a_data_set_of_the_hub_comes_from_its_cache(table: datasets.Dataset, tmp_path: Path) -> None:
    """The cache is as `datasets` leaves it after a download; the process may not go online."""
    home = tmp_path / "home"
    kept = home / "datasets" / "acme___reviews" / "default" / "0.0.0" / "0123456789abcdef"
    table.to_parquet(tmp_path / "train.parquet")
    made = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "made")
    )
    (arrow,) = {Path(file["filename"]) for file in made["train"].cache_files}
    kept.parent.mkdir(parents=True)
    arrow.parent.rename(kept)
    (kept / arrow.name).rename(kept / "reviews-train.arrow")
    info = kept / "dataset_info.json"
    info.write_text(info.read_text().replace('"dataset_name": "parquet"', '"dataset_name": "reviews"'))
    script = (
        "from bench.corpus import read_documents; print(len(list(read_documents('acme/reviews', 'review', 'stars'))))"
    )
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "120", done.stderr
    missing = subprocess.run(
        [sys.executable, "-c", script.replace("acme/reviews", "acme/nothing")],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "nor a data set of the hub" in missing.stderr
