"""Caption metrics, equal to those of coco-caption. One file per metric; no Java, no torch."""

from edgecap.training.metrics.cider import Cider, DocumentFrequency
from edgecap.training.metrics.cider_d import CiderD, TokenDocumentFrequency
from edgecap.training.metrics.evaluate import (
    METRICS,
    QUICK,
    Interval,
    Scores,
    bootstrap,
    evaluate,
)
from edgecap.training.metrics.files import read_hypotheses, read_references
from edgecap.training.metrics.ptb import tokenize

__all__ = [
    "METRICS",
    "QUICK",
    "Cider",
    "CiderD",
    "DocumentFrequency",
    "Interval",
    "Scores",
    "TokenDocumentFrequency",
    "bootstrap",
    "evaluate",
    "read_hypotheses",
    "read_references",
    "tokenize",
]
