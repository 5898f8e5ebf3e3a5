"""Captions as scene graphs: a dependency parse, rules that read facts off it, and their union."""

from edgecap.training.metrics.scene_graph.extract import FactExtractor
from edgecap.training.metrics.scene_graph.graph import Concept, Fact, SceneGraph

__all__ = ["Concept", "Fact", "FactExtractor", "SceneGraph"]
