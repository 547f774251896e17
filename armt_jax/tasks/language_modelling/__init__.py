"""Language modelling: documents in contexts of consecutive segments, every token predicted."""

from armt_jax.tasks.language_modelling.contexts import (
    Context,
    Contexts,
    TokenDocuments,
    tokenise_documents,
)
from armt_jax.tasks.language_modelling.stream import context_stream
from armt_jax.tasks.language_modelling.texts import SPLITS, articles, load_documents

__all__ = [
    "SPLITS",
    "Context",
    "Contexts",
    "TokenDocuments",
    "articles",
    "context_stream",
    "load_documents",
    "tokenise_documents",
]
