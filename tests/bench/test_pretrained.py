"""Hugging Face models, from a folder or by id from the cache: each kind, with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
)

from bench.corpus import BYTES, Corpus
from bench.resolve import resolve
from bench.spec import WorkloadSpec


def gpt2(size: int) -> nn.Module:
    model: nn.Module = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=1, n_head=2, n_positions=64))
    return model


def bert(size: int) -> nn.Module:
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    model: nn.Module = BertForMaskedLM(config)
    return model


def t5(size: int) -> nn.Module:
    config = T5Config(
        vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    model: nn.Module = T5ForConditionalGeneration(config)
    return model


KINDS = {"causal": gpt2, "masked": bert, "sequence to sequence": t5}


def tokenizer(corpus: Corpus) -> PreTrainedTokenizerFast:
    """A small tokenizer, trained like published ones, with the special tokens that the kinds of model need."""
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    special = ["<pad>", "<s>", "</s>", "<mask>"]
    made.train_from_iterator([corpus.text().tobytes().decode()], vocab_size=500, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", mask_token="<mask>"
    )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_each_kind_of_language_model_trains_from_its_folder(
    corpus: Corpus, tmp_path: Path, kind: str, has_tokenizer: bool
) -> None:
    own: Any = tokenizer(corpus) if has_tokenizer else None
    model = KINDS[kind](512)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    if own is not None:
        own.save_pretrained(tmp_path)
    workload = resolve(WorkloadSpec(model=str(tmp_path), sequence=32), corpus)
    built, samples = workload.model(), workload.data()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, built.get_parameter(name))
    loss = workload.loss(built, default_collate([samples[index] for index in range(4)]))
    loss.backward()
    assert torch.isfinite(loss) and loss.requires_grad
    assert workload.text is not None
    vocabulary = workload.text.vocabulary
    if own is None:
        assert vocabulary == BYTES
        return
    assert (vocabulary.size, vocabulary.end, vocabulary.mask) == (500, own.eos_token_id, own.mask_token_id)
    tokens = corpus.tokens(vocabulary)
    first = tokens[: int((tokens == vocabulary.end).argmax())]
    assert corpus.text().tobytes().decode().startswith(own.decode(first))
    assert corpus.line_ends(vocabulary)


def test_a_model_that_knows_no_text_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a vit, which transformers does not know as a causal, masked or"):
        resolve(WorkloadSpec(model=str(tmp_path)), corpus)


def test_pickled_weights_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    GPT2Config(vocab_size=300).save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"weights as a pickle \(pytorch_model.bin\).*save_pretrained"):
        resolve(WorkloadSpec(model=str(tmp_path)), corpus)


def test_a_tokenizer_of_another_model_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    gpt2(300).save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer(corpus).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="knows 300 tokens, but its tokenizer has 500"):
        resolve(WorkloadSpec(model=str(tmp_path)), corpus)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_an_id_is_found_in_the_standard_cache(corpus: Corpus, cache: Path) -> None:
    # The layout of the cache is documented: a folder per model, in it a folder per revision, and the ref `main`.
    folder = cache / "models--acme--tiny"
    revision = "0123456789abcdef0123456789abcdef01234567"
    made = gpt2(512)
    made.save_pretrained(folder / "snapshots" / revision)  # type: ignore[operator]
    tokenizer(corpus).save_pretrained(folder / "snapshots" / revision)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    workload = resolve(WorkloadSpec(model="acme/tiny", sequence=32), corpus)
    assert workload.text is not None and workload.text.vocabulary.size == 500
    built = workload.model()
    assert all(torch.equal(parameter, built.get_parameter(name)) for name, parameter in made.named_parameters())


def test_an_id_that_cannot_be_fetched_says_how(corpus: Corpus, cache: Path) -> None:
    with pytest.raises(ValueError, match=r"could not be downloaded .*run `hf download acme/tiny`"):
        resolve(WorkloadSpec(model="acme/tiny"), corpus)
