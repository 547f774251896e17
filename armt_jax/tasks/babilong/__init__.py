"""BABILong (arXiv 2406.10149): bAbI questions whose facts lie among the sentences of books.

    tokenizer = gpt2_tokenizer(folder)
    books = TokenisedBooks(load_books("test"), tokenizer)
    question = load_questions(babi_folder(data_dir), "qa1", "test")[0]
    sample = build_sample(books, question, 50_000_000, sample_rng(stream, 0))
    for tokens in sample.blocks(65_536): ...              # int32 [n], lazily
    sample.query.prompt, question.answer                  # question and GEN; what is right
"""

from armt_jax.tasks.babilong.babi import Question, babi_folder, load_questions
from armt_jax.tasks.babilong.books import BookFolder, GeneratedBooks, check_apart, load_books
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.sample import (
    BabilongSample,
    Query,
    build_sample,
    make_query,
    sample_rng,
    tokens_of_length,
    tokens_of_segments,
)
from armt_jax.tasks.babilong.tokenizers import (
    BabilongTokenizer,
    gpt2_tokenizer,
    load_tokenizer,
    train_tokenizer,
)

__all__ = [
    "BabilongSample",
    "BabilongTokenizer",
    "BookFolder",
    "GeneratedBooks",
    "Query",
    "Question",
    "TokenisedBooks",
    "babi_folder",
    "build_sample",
    "check_apart",
    "gpt2_tokenizer",
    "load_books",
    "load_questions",
    "load_tokenizer",
    "make_query",
    "sample_rng",
    "tokens_of_length",
    "tokens_of_segments",
    "train_tokenizer",
]
