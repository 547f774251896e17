"""Events on mutable entities: attributes are set, overwritten and deleted, then asked for.

What the rewrite task asks, in the form users meet: "order 17, status: sent", "order 4, total: 312",
"order 17, address: deleted". A segment holds one event, a query one question about an entity's
attribute: its latest value, or NONE where it was deleted. Nothing else tells what is current, so a
memory that gathers old values beside new ones is found out.

An event is ``entity attribute op value ;``, a query ``entity attribute ? value ;`` of the same
length. Scored are the value and the ``;``. Values of numeric attributes are numbers of
``value_size`` decimal digits; of the others one word of 16, filled up with blanks.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from armt_jax.config.recall_tasks import check_entity_events
from armt_jax.tasks.associative_retrieval import Sample

DIGITS = 16  # tokens 0..15: entities are numbers of two such digits; numbers use 0..9
ENTITY_SIZE = 2
FIRST_ATTRIBUTE = 16  # 16 tokens
FIRST_WORD = 32  # 16 tokens
NUM_WORDS = 16
SET, DELETE, ASK, NONE, BLANK, END = 100, 101, 102, 103, 104, 105
VOCAB_SIZE = 106


@dataclasses.dataclass(frozen=True)
class EntityEvents:
    """Sizes of the task, and its sampler.

    Attributes:
      num_events: segments of a context.
      num_entities: different entities of a context, chosen anew for each of 256.
      num_attributes: of every entity; the last ``numeric_attributes`` of them hold numbers.
      numeric_attributes: how many.
      value_size: tokens of a value.
      delete_share: of the events on an attribute that has a value, those that delete it; the
        others overwrite it.
      num_queries: attributes asked per context, among those that any event named; 0: all.

    Raises:
      ConfigError: an impossible size.
    """

    num_events: int
    num_entities: int
    num_attributes: int
    numeric_attributes: int
    value_size: int
    delete_share: float
    num_queries: int

    def __post_init__(self) -> None:
        check_entity_events("task", self)

    @property
    def label(self) -> str:
        """For people."""
        things = f"{self.num_entities} entities of {self.num_attributes} attributes"
        return f"entity_events, {self.num_events} events on {things}"

    @property
    def segment_length(self) -> int:
        """Tokens of an event or a query."""
        return ENTITY_SIZE + self.value_size + 3

    @property
    def max_queries(self) -> int:
        """Length of the query axis."""
        touched = min(self.num_events, self.num_entities * self.num_attributes)
        return self.num_queries or touched

    def sample(self, rng: np.random.Generator) -> Sample:
        """A context and its queries, in random order, without repetition."""
        entities = rng.choice(DIGITS**ENTITY_SIZE, self.num_entities, replace=False)
        current: dict[tuple[int, int], np.ndarray | None] = {}
        context = np.zeros((self.num_events, self.segment_length), np.int32)
        for index in range(self.num_events):
            key = (int(rng.choice(entities)), int(rng.integers(self.num_attributes)))
            deletes = current.get(key) is not None and rng.random() < self.delete_share
            current[key] = None if deletes else self._value(rng, key[1])
            context[index] = self._segment(key, DELETE if deletes else SET, current[key])
        asked = list(current)
        count = min(self.max_queries, len(asked))
        chosen = rng.permutation(len(asked))[:count]
        queries = np.zeros((self.max_queries, self.segment_length), np.int32)
        for row, index in enumerate(chosen):
            queries[row] = self._segment(asked[index], ASK, current[asked[index]])
        return Sample(
            context=context,
            context_mask=np.ones(self.num_events, bool),
            queries=queries,
            query_mask=np.arange(self.max_queries) < count,
        )

    def _value(self, rng: np.random.Generator, attribute: int) -> np.ndarray:
        if attribute >= self.num_attributes - self.numeric_attributes:
            return rng.integers(0, 10, self.value_size)
        value = np.full(self.value_size, BLANK)
        value[0] = FIRST_WORD + rng.integers(NUM_WORDS)
        return value

    def _segment(self, key: tuple[int, int], op: int, value: np.ndarray | None) -> np.ndarray:
        entity, attribute = key
        shown = np.full(self.value_size, NONE) if value is None else value
        head = [entity // DIGITS, entity % DIGITS, FIRST_ATTRIBUTE + attribute, op]
        return np.concatenate([head, shown, [END]]).astype(np.int32)
