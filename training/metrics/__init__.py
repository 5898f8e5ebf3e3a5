"""Caption metrics, equal to those of coco-caption. One file per metric; no Java, no torch."""

from edgecap.training.metrics.cider import Cider, DocumentFrequency
from edgecap.training.metrics.evaluate import METRICS, Interval, Scores, bootstrap, evaluate
from edgecap.training.metrics.ptb import tokenize

__all__ = [
    "METRICS",
    "Cider",
    "DocumentFrequency",
    "Interval",
    "Scores",
    "bootstrap",
    "evaluate",
    "tokenize",
]
