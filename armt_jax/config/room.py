"""What fits into a model: its positions, and the texts it can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armt_jax.config.checks import require

if TYPE_CHECKING:
    from armt_jax.config.model import ModelConfig


def check_segment(config: ModelConfig, length: int) -> None:
    """Raise ``ConfigError`` where a segment of ``length`` tokens has no room in positions."""
    check_text(config, length)
    if not config.has_learned_positions:
        return
    taken, why = _shared_positions(config)
    room = config.n_positions - taken
    accepted = f"must be at most {room} (model.n_positions = {config.n_positions}{why})"
    require(length <= room, "segment length", length, accepted)


def check_text(config: ModelConfig, length: int) -> None:
    """Raise ``ConfigError`` where a text of ``length`` tokens is longer than the model reads.

    Only the transformer has a limit: what its cache keeps, and its learned positions, which go
    on from segment to segment.
    """
    if config.family != "transformer":
        return
    limits = {} if config.attention_window else {"context_tokens": config.context_tokens}
    if config.has_learned_positions:
        limits["n_positions"] = config.n_positions
    for name, most in limits.items():
        accepted = f"must be at most model.{name} = {most} for model.family = 'transformer'"
        require(length <= most, "text length", length, accepted)


def check_new_tokens(config: ModelConfig, text: int, last: int, new: int) -> None:
    """Raise ``ConfigError`` where there is no room to continue a text; see ``ModelConfig``."""
    check_text(config, text + new)
    if config.family == "transformer" or not config.has_learned_positions:
        return
    prefix = 0 if config.wrap_pos else config.prefix_positions
    room = config.n_positions - prefix - last
    front = f", {prefix} memory tokens" if prefix else ""
    accepted = (
        f"must be at most {room}, model.n_positions = {config.n_positions} "
        f"less a last segment of {last} tokens{front}"
    )
    require(new <= room, "max_new_tokens", new, accepted)


def _shared_positions(config: ModelConfig) -> tuple[int, str]:
    """Learned positions that memory tokens take from the tokens, and how errors say that."""
    taken = 0 if config.wrap_pos else config.memory_positions
    if not taken:
        return 0, ""
    copies = taken // config.num_mem_tokens
    times = "" if copies == 1 else f"{copies} * "
    return taken, f" less {times}model.num_mem_tokens = {taken}"
