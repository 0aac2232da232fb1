"""The root cause of a failure in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.causes import LONGEST, one_line, root_cause


class Broken(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        raise OSError("image /data/1777.jpg is truncated (12 bytes not processed)")


def test_a_failure_in_a_loaders_worker_is_the_workers() -> None:
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(Broken(), num_workers=1)
    with pytest.raises(OSError, match="truncated") as caught:
        next(iter(loader))
    assert "Caught" in str(caught.value)
    assert root_cause(caught.value) == "OSError: image /data/1777.jpg is truncated (12 bytes not processed)"


def test_a_message_of_several_lines_is_whole() -> None:
    text = "enable it by passing `find_unused_parameters=True`, and by \nmaking sure all outputs are used.\n"
    assert root_cause(RuntimeError(text)) == (
        "RuntimeError: enable it by passing `find_unused_parameters=True`, and by making sure all outputs are used."
    )


def test_where_torch_was_is_left_out() -> None:
    text = "the tensors differ\nException raised from check at ../x.cpp:12 (most recent call first):\nframe #0: a"
    assert one_line(text) == "the tensors differ"


def test_a_manual_is_cut() -> None:
    assert len(one_line("word " * 1000)) <= LONGEST
    assert root_cause(KeyError()) == "KeyError"
