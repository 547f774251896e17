"""What the ARMT paper reports on BABILong (arXiv 2407.04841, Table 1): exact match, in percent.

ARMT is a mean of three runs and Mamba of two; ``spread`` is their standard deviation. 50M of ARMT
is the same mean, and its best run is a row of its own.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "arXiv 2407.04841, Table 1"
LENGTHS = ("64k", "128k", "500k", "1M", "10M", "50M")


class PublishedRow(NamedTuple):
    """One model on one task: a value for each of ``LENGTHS``, None where none is reported."""

    task: str
    model: str
    values: tuple[float | None, ...]
    spread: tuple[float | None, ...] = (None,) * 6


_NO = None
PUBLISHED = (
    PublishedRow("qa1", "GPT-4 (few-shot)", (30.0, 24.0, _NO, _NO, _NO, _NO)),
    PublishedRow("qa1", "GPT-4 + RAG (few-shot)", (50.0, 56.0, 50.0, 56.0, 16.0, _NO)),
    PublishedRow("qa1", "RMT (137M)", (99.6, 99.1, 96.4, 94.2, 76.4, _NO)),
    PublishedRow("qa1", "RMT (137M), best run", (_NO, _NO, _NO, _NO, _NO, 64.8)),
    PublishedRow("qa1", "RMT-R", (99.7, 99.5, 97.5, 97.4, 86.0, _NO)),
    PublishedRow(
        "qa1", "Mamba (130M)", (100.0, 99.5, 92.3, _NO, _NO, _NO), (0.0, 0.2, 1.1, _NO, _NO, _NO)
    ),
    PublishedRow(
        "qa1", "ARMT (145M)", (100.0, 99.9, 99.3, 98.5, 89.4, 49.6), (0.0, 0.2, 0.9, 1.0, 8.1, 40.4)
    ),
    PublishedRow("qa1", "ARMT (145M), best run", (_NO, _NO, _NO, _NO, _NO, 79.9)),
    PublishedRow("qa2", "GPT-4 (few-shot)", (4.0, 8.0, _NO, _NO, _NO, _NO)),
    PublishedRow("qa2", "RMT (137M)", (72.7, 56.3, 32.0, 25.5, 16.2, _NO)),
    PublishedRow("qa2", "RMT-R", (71.6, 54.9, 31.8, 26.3, 13.0, _NO)),
    PublishedRow(
        "qa2", "Mamba (130M)", (95.0, 86.7, _NO, _NO, _NO, _NO), (4.2, 6.2, _NO, _NO, _NO, _NO)
    ),
    PublishedRow(
        "qa2", "ARMT (145M)", (100.0, 99.8, 99.4, 99.4, 84.4, _NO), (0.0, 0.2, 0.3, 0.3, 4.0, _NO)
    ),
    PublishedRow("qa3", "GPT-4 (few-shot)", (12.0, 4.0, _NO, _NO, _NO, _NO)),
    PublishedRow("qa3", "RMT (137M)", (51.9, 42.9, 25.9, 24.8, 21.0, _NO)),
    PublishedRow("qa3", "RMT-R", (52.9, 41.9, 25.5, 22.2, 16.4, _NO)),
    PublishedRow(
        "qa3", "Mamba (130M)", (91.8, 81.4, _NO, _NO, _NO, _NO), (0.3, 1.0, _NO, _NO, _NO, _NO)
    ),
    PublishedRow(
        "qa3", "ARMT (145M)", (90.4, 86.0, 79.7, 72.1, 37.0, _NO), (2.2, 4.8, 10.8, 14.2, 10.3, _NO)
    ),
    PublishedRow("qa4", "GPT-4 (few-shot)", (20.0, 36.0, _NO, _NO, _NO, _NO)),
    PublishedRow("qa4", "RMT (137M)", (51.2, 40.0, 29.4, 27.3, 17.2, _NO)),
    PublishedRow("qa4", "RMT-R", (58.8, 50.1, 32.1, 26.0, 14.0, _NO)),
    PublishedRow(
        "qa4", "Mamba (130M)", (99.7, 97.6, _NO, _NO, _NO, _NO), (0.2, 2.8, _NO, _NO, _NO, _NO)
    ),
    PublishedRow(
        "qa4", "ARMT (145M)", (100.0, 100.0, 99.9, 99.8, 91.5, _NO), (0.1, 0.1, 0.2, 0.3, 1.7, _NO)
    ),
    PublishedRow("qa5", "GPT-4 (few-shot)", (64.0, 48.0, _NO, _NO, _NO, _NO)),
    PublishedRow("qa5", "RMT (137M)", (88.5, 78.1, 56.4, 48.0, 27.3, _NO)),
    PublishedRow("qa5", "RMT-R", (86.2, 77.4, 55.9, 49.9, 35.0, _NO)),
    PublishedRow(
        "qa5", "Mamba (130M)", (98.7, 97.5, _NO, _NO, _NO, _NO), (0.1, 1.1, _NO, _NO, _NO, _NO)
    ),
    PublishedRow(
        "qa5", "ARMT (145M)", (99.0, 98.7, 98.4, 97.3, 80.9, _NO), (0.3, 0.4, 0.3, 0.6, 7.6, _NO)
    ),
)
