"""Hugging Face models: a folder, or an id whose folder is in the standard cache. Their configuration, weights and
tokenizer are used, but none of their code."""

from __future__ import annotations

import copy
import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.causes import one_line
from bench.corpus import Vocabulary
from bench.samples import Masked, Objective, causal, continuation

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""The id of a model or data set on the hub: its owner and its name."""

FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]
"""The files that are downloaded of a model: no pickles, which can run any code, and none of its own code."""

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A folder with a configuration that transformers knows. `name` is what the user typed."""

    name: str
    folder: Path
    config: Any


def is_named(model: str) -> bool:
    """Whether `--model` can only mean a folder or an id on the hub."""
    return Path(model).is_dir() or bool(ID.fullmatch(model))


def find(model: str) -> Pretrained:
    """The folder of this path or id. Raises ValueError, saying what to do, if there is none that can be used."""
    from transformers import AutoConfig

    folder = Path(model) if Path(model).is_dir() else _cached(model)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"model folder {model!r} has no usable config.json: {one_line(str(error))}") from error
    pickled = [file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    if pickled and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"model {model!r} has its weights as a pickle ({pickled[0]}), which can run any code: save it with "
            "model.save_pretrained(folder), which writes safetensors"
        )
    return Pretrained(name=model, folder=folder, config=config)


def _cached(model: str) -> Path:
    """The folder of an id: from the cache, or else downloaded from the hub."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    fetch = functools.partial(huggingface_hub.snapshot_download, model, allow_patterns=FILES)
    try:
        return Path(fetch(local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    try:
        return Path(fetch())
    except (OSError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled) as error:
        raise ValueError(
            f"model {model!r} is not a folder, is not in the Hugging Face cache, and could not be downloaded "
            f"({type(error).__name__}): run `hf download {model}` with a network, or give a folder"
        ) from error


def language_model(found: Pretrained) -> tuple[Any, Objective | type[Masked]]:
    """The auto class that builds the model, and what it learns from text. Raises ValueError if it is not a language
    model."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    kind = type(found.config)
    if kind in AutoModelForSeq2SeqLM._model_mapping and getattr(found.config, "is_encoder_decoder", False):
        return AutoModelForSeq2SeqLM, continuation
    if kind in AutoModelForMaskedLM._model_mapping and not getattr(found.config, "is_decoder", False):
        return AutoModelForMaskedLM, Masked
    if kind in AutoModelForCausalLM._model_mapping:
        return AutoModelForCausalLM, causal
    raise ValueError(
        f"model {found.name!r} is a {found.config.model_type}, which transformers does not know as a causal, masked "
        "or sequence-to-sequence language model: give FILE.py:FUNCTION that returns a Workload"
    )


def vocabulary(found: Pretrained) -> Vocabulary | None:
    """The vocabulary of the folder's own tokenizer, so that weights meet the tokens they know. None if it has no
    tokenizer."""
    files = [file for name in TOKENIZERS if (file := found.folder / name).is_file()]
    if not files:
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(found.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # Each kind of tokenizer fails in its own way.
        raise ValueError(
            f"model {found.name!r} has a tokenizer that cannot be loaded: {one_line(str(error))}"
        ) from error
    most = getattr(found.config, "vocab_size", None)
    if most is not None and len(tokenizer) > most:
        raise ValueError(
            f"model {found.name!r} knows {most} tokens, but its tokenizer has {len(tokenizer)}: they do not belong "
            "together"
        )
    first = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, 0)
    end = next(number for number in first if number is not None)
    return Vocabulary(
        size=len(tokenizer),
        end=end,
        mask=end if tokenizer.mask_token_id is None else tokenizer.mask_token_id,
        pad=end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        tokenizer=str(found.folder.resolve()),
        digest=hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12],
    )


def build(found: Pretrained, kind: Any, **options: Any) -> nn.Module:
    """A model of this auto class with the folder's weights, or with fresh ones if it has none."""
    config = copy.deepcopy(found.config)
    for name, value in options.items():
        setattr(config, name, value)
    # On the meta device only shapes are wanted, and no weights are loaded.
    if any(found.folder.glob("*.safetensors")) and torch.get_default_device().type != "meta":
        # transformers takes a default device as a request to spread the model over devices, which needs another
        # package.
        with torch.device("cpu"):
            model: nn.Module = kind.from_pretrained(
                found.folder, config=config, local_files_only=True, trust_remote_code=False, dtype=torch.float32
            )
        return model
    built: nn.Module = kind.from_config(config)
    return built
