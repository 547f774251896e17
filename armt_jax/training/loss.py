"""Losses: next-token cross-entropy, over a whole text or at the answers of queries."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

IGNORED_LABEL = -100


def next_token_loss(
    logits: jax.Array, labels: jax.Array, labels_mask: jax.Array | None = None
) -> jax.Array:
    """Mean next-token cross-entropy as the authors define it.

    Logits are shifted over the whole text, so the last token of a segment predicts the first of
    the next. ``labels_mask[:, i]`` selects position i as a *predicting* one (its last column is not
    used); a label of -100 is ignored.

    Args:
      logits: ``[b, n, v]``.
      labels: ``[b, n]`` integer ids (the tokens themselves).
      labels_mask: ``[b, n]`` bool, all True for None.

    Returns:
      A scalar, the mean over selected tokens of the batch, in nats.
    """
    targets = labels[:, 1:]
    use = targets != IGNORED_LABEL
    if labels_mask is not None:
        use = use & labels_mask[:, :-1].astype(bool)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits[:, :-1], jnp.where(use, targets, 0)
    )
    return masked_mean(losses, use)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of ``values`` where ``mask``; 0 where nothing is selected."""
    weights = mask.astype(values.dtype)
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)
