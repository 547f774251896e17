"""Byte-level BPE tokenizers from GGUF's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from armt_jax.config import ConfigError
from armt_jax.config.checks import one_of

# GGUF's kinds of tokens.
_CONTROL, _USER_DEFINED = 3, 4
# Llama 3's pattern, as its own tokenizer.json has it.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _gpt2() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> Any:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, _gpt2()])


def _llama3() -> Any:
    pieces = pre_tokenizers.Split(Regex(_LLAMA3), behavior="isolated", invert=False)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pieces, bytes_])


# How a text is cut before merging, by GGUF's name of it.
_PRE = {"gpt-2": _gpt2, "smollm": _smollm, "llama-bpe": _llama3}


def build_tokenizer(values: Mapping[str, Any], where: str) -> Tokenizer:
    """A tokenizer from the values under ``tokenizer.ggml``.

    Args:
      values: ``model``, ``pre``, ``tokens``, ``merges`` and ``token_type``.
      where: whose they are, for messages.

    Raises:
      ConfigError: another kind of tokenizer, or one that lacks a part.
    """
    one_of(f"{where}: tokenizer.ggml.model", values.get("model"), ("gpt2",))
    one_of(f"{where}: tokenizer.ggml.pre", values.get("pre"), tuple(_PRE))
    missing = [name for name in ("tokens", "merges", "token_type") if not values.get(name)]
    if missing:
        raise ConfigError(f"{where}: lacks tokenizer.ggml.{', tokenizer.ggml.'.join(missing)}")
    tokens, kinds = values["tokens"], values["token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in values["merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    # Llama 3 takes a whole word that is in the vocabulary as it is, whatever its merges say.
    whole = values["pre"] == "llama-bpe"
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole))
    tokenizer.pre_tokenizer = _PRE[values["pre"]]()
    tokenizer.decoder = decoders.ByteLevel()
    pairs = list(zip(tokens, kinds, strict=True))
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in pairs if kind == _CONTROL]
    )
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False) for token, kind in pairs if kind == _USER_DEFINED]
    )
    return tokenizer
