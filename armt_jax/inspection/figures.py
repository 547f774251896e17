"""What was observed of a memory, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from armt_jax.evaluation.figures import MARKERS, PALETTE, STYLE, save_figure
from armt_jax.inspection.report import Reading, cosine_similarity
from armt_jax.inspection.strength import Strength

_ROWS = 48  # segments in a picture: their text is still read
_CHARACTERS = 72  # of a segment's text
_QUOTES = "‘’“”–—…"
_KEYS = 24  # segments whose keys are compared in a picture


def draw_all(folder: Path, reading: Reading, strength: Strength | None) -> list[Path]:
    """All figures that there is something for; their files.

    Raises:
      OSError: a file cannot be written.
    """
    figures = {
        "gates.png": gates_figure(reading),
        "sizes.png": sizes_figure(reading),
        "keys.png": keys_figure(reading),
    }
    if strength is not None:
        figures["strength.png"] = strength_figure(strength)
    for name, figure in figures.items():
        with matplotlib.rc_context(STYLE):
            save_figure(figure, folder / name)
    return [folder / name for name in figures]


def gates_figure(reading: Reading) -> Figure:
    """Write gates of all layers and memory tokens beside the text of each segment."""
    beta = np.asarray(reading.seen.beta)[:_ROWS]
    segments, layers, tokens = beta.shape
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 1.4 + 0.19 * segments), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(
            beta.reshape(segments, -1), vmin=0, vmax=1, cmap="viridis", aspect="auto"
        )
        labels = [_shortened("".join(pieces)) for pieces in reading.pieces[:_ROWS]]
        axes.set_yticks(range(segments), labels, fontsize=6, family="monospace")
        axes.set_xticks([tokens * layer + (tokens - 1) / 2 for layer in range(layers)])
        axes.set_xticklabels([str(layer) for layer in range(layers)])
        for layer in range(1, layers):
            axes.axvline(tokens * layer - 0.5, color="white", lw=1.5)
        axes.grid(visible=False)
        axes.set(xlabel=f"Layer ({tokens} memory tokens each)", title="Write gates along the text")
        figure.colorbar(image, ax=axes, label="beta", shrink=0.6)
    return figure


def sizes_figure(reading: Reading) -> Figure:
    """Size of A and of z, mean gate and mean gamma of each layer along the segments."""
    seen = reading.seen
    panels: list[tuple[str, Any]] = [
        ("|A| (Frobenius)", seen.A),
        ("|z|", seen.z),
        ("beta, mean", np.asarray(seen.beta).mean(-1)),
        ("gamma, mean", None if seen.gamma is None else np.asarray(seen.gamma).mean(-1)),
    ]
    shown = [(label, np.asarray(values)) for label, values in panels if values is not None]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.9 * len(shown)), layout="constrained")
        rows = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (label, values) in zip(rows, shown, strict=True):
            for layer in range(values.shape[1]):
                axes.plot(
                    np.arange(1, values.shape[0] + 1),
                    values[:, layer],
                    color=PALETTE[layer % len(PALETTE)],
                    label=f"layer {layer}",
                )
            axes.set(ylabel=label)
        rows[-1].set(xlabel="Segments read (count)")
        rows[0].legend(ncols=4)
    return figure


def keys_figure(reading: Reading) -> Figure:
    """Cosine similarity of the keys of the first segments, one panel a layer."""
    keys = np.asarray(reading.seen.keys)[:_KEYS]
    segments, layers, tokens = keys.shape[:3]
    columns = min(layers, 4)
    lines = -(-layers // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * columns + 1, 2.7 * lines + 0.4), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        image: Any = None
        for index, axes in enumerate(grid.flat):
            if index >= layers:
                axes.set_visible(False)
                continue
            cosine = cosine_similarity(keys[:, index].reshape(segments * tokens, -1))
            image = axes.imshow(
                cosine, vmin=0, vmax=1, cmap="magma", extent=(0, segments, segments, 0)
            )
            axes.grid(visible=False)
            axes.set(title=f"layer {index}", xlabel="segment", ylabel="segment")
        figure.colorbar(image, ax=grid, label="cosine of keys", shrink=0.7)
    return figure


def strength_figure(strength: Strength) -> Figure:
    """What is left of a fact, and what came instead, against the noise read after it."""
    with matplotlib.rc_context(STYLE):
        rows = 2 if strength.answer is None else 3
        figure = Figure(figsize=(6.4, 2.1 * rows), layout="constrained")
        panels = figure.subplots(rows, 1, sharex=True)
        _by_layer(panels[0], strength.distances, strength.strength, "strength")
        _by_layer(panels[1], strength.distances, strength.interference, "interference")
        panels[0].axhline(0, color="black", lw=0.6)
        panels[0].legend(ncols=4)
        if strength.answer is not None:
            panels[2].plot(strength.distances, strength.answer, "o-", color=PALETTE[0])
            panels[2].set(ylabel="P(answer)", ylim=(-0.02, 1.02))
        panels[-1].set_xscale("symlog", linthresh=1)
        panels[-1].set(xlabel="Segments of noise after the fact (count)")
    return figure


def _by_layer(axes: Axes, x: np.ndarray, values: np.ndarray, label: str) -> None:
    for layer in range(values.shape[1]):
        axes.plot(
            x,
            values[:, layer],
            color=PALETTE[layer % len(PALETTE)],
            marker=MARKERS[layer % len(MARKERS)],
            label=f"layer {layer}",
        )
    axes.set(ylabel=label)


def _shortened(text: str) -> str:
    # Characters that the font has; a dollar would begin a formula.
    drawn = (char if _has_glyph(char) else "·" for char in " ".join(text.split()))
    line = "".join(drawn).replace("$", r"\$")
    return line if len(line) <= _CHARACTERS else line[: _CHARACTERS - 1] + "…"


def _has_glyph(char: str) -> bool:
    return char.isprintable() and (ord(char) < 0x250 or char in _QUOTES)
