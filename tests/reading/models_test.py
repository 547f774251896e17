"""Memories of other families, of models without a tokenizer, and read by two devices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from armt_jax.reading import Document, Memory, ReadingModel, TokenForm
from tests.reading.cases import (
    QUESTIONS,
    SEGMENT,
    TEXT,
    StoppedError,
    bits,
    reading_model,
    stop_at,
)
from tests.small_models import assert_close


@pytest.mark.slow
@pytest.mark.parametrize("family", ["rmt", "transformer", "delta_net"])
def test_other_families_are_read_and_kept(tmp_path: Path, family: str) -> None:
    model = reading_model(family=family, backbone="llama", d_state=4, d_conv=2)
    memory = Memory(model)
    with pytest.raises(StoppedError):
        memory.read(TEXT, snapshot=tmp_path / "m", on_progress=stop_at(40))
    resumed = Memory.load(tmp_path / "m", model).read(TEXT)
    assert bits(resumed.state()) == bits(Memory(model).read(TEXT).state())
    assert len(resumed.ask(QUESTIONS)) == 3


@pytest.mark.slow
def test_without_a_tokenizer_everything_is_ids() -> None:
    tokenised = reading_model()
    model = dataclasses.replace(tokenised, form=TokenForm(stop_id=None))
    document = Document.of_text(TEXT, tokenised.form)
    ids = document.read(0, document.num_tokens)
    memory = Memory(model).read(jnp.asarray(ids))
    assert bits(memory.state()) == bits(Memory(tokenised).read(TEXT).state())
    prompt = np.array(tokenised.form.prompt(QUESTIONS[0]))
    (answer,) = memory.ask([prompt], max_new_tokens=3)
    assert len(answer.split()) == 3
    with pytest.raises(ConfigError, match="has no tokenizer, give token ids"):
        memory.ask("Where?")


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_two_devices_share_a_segment(tmp_path: Path) -> None:
    one = reading_model(n_layer=3)
    two = ReadingModel(one.model, one.params, one.form, SEGMENT)  # its reader takes two of eight
    assert len(jax.tree.leaves(two.reader.params)[0].sharding.device_set) == 2
    straight = Memory(one).read(TEXT)
    memory = Memory(two).read(TEXT)
    assert_close(memory.state(), straight.state(), 1e-10)
    memory.save(tmp_path / "m")
    loaded = Memory.load(tmp_path / "m", two)
    for again in (loaded, memory.fork()):
        assert bits(again.read(TEXT).state()) == bits(loaded.state())
        assert again.ask(QUESTIONS) == straight.fork().read(TEXT).ask(QUESTIONS)
    Memory.load(tmp_path / "m", one)  # a memory is of parameters, not of devices
