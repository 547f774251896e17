"""BABILong (arXiv 2406.10149): bAbI questions whose facts lie among the sentences of books.

tokenizer = gpt2_tokenizer(folder)
books = TokenisedBooks(load_books("test"), tokenizer)
question = load_questions(babi_folder(data_dir), "qa1", "test")[0]
sample = build_sample(books, question, 50_000_000, sample_rng(stream, 0))
for tokens in sample.blocks(65_536): ...              # int32 [n], lazily
sample.query.prompt, question.answer                  # question and GEN; what is right
"""

from armt_jax.tasks.babilong.babi import TASKS, Question, babi_folder, load_questions
from armt_jax.tasks.babilong.books import BookFolder, GeneratedBooks, check_apart, load_books
from armt_jax.tasks.babilong.evaluation_sets import EvaluationSet, load_hundred_ids, official_ids
from armt_jax.tasks.babilong.examples import ExampleMaker, ForkedExample, SequenceExample
from armt_jax.tasks.babilong.frozen import FrozenSample, load_frozen_babilong
from armt_jax.tasks.babilong.noise import TokenisedBooks, draw_passage
from armt_jax.tasks.babilong.questions import QuestionList, evaluation_questions, training_questions
from armt_jax.tasks.babilong.sample import (
    BabilongSample,
    Query,
    build_sample,
    make_query,
    sample_rng,
    tokens_of_length,
    tokens_of_segments,
)
from armt_jax.tasks.babilong.simulator import Simulator
from armt_jax.tasks.babilong.solver import all_questions, answers
from armt_jax.tasks.babilong.tokenizers import (
    BabilongTokenizer,
    gpt2_tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from armt_jax.tasks.babilong.training_stream import babilong_stream
from armt_jax.tasks.babilong.vocabulary import small_tokenizer

__all__ = [
    "TASKS",
    "BabilongSample",
    "BabilongTokenizer",
    "BookFolder",
    "EvaluationSet",
    "ExampleMaker",
    "ForkedExample",
    "FrozenSample",
    "GeneratedBooks",
    "Query",
    "Question",
    "QuestionList",
    "SequenceExample",
    "Simulator",
    "TokenisedBooks",
    "all_questions",
    "answers",
    "babi_folder",
    "babilong_stream",
    "build_sample",
    "check_apart",
    "draw_passage",
    "evaluation_questions",
    "gpt2_tokenizer",
    "load_books",
    "load_frozen_babilong",
    "load_hundred_ids",
    "load_questions",
    "load_tokenizer",
    "make_query",
    "official_ids",
    "sample_rng",
    "small_tokenizer",
    "tokens_of_length",
    "tokens_of_segments",
    "train_tokenizer",
    "training_questions",
]
