"""Why a training run cannot go on."""

from __future__ import annotations

from edgecap.runtime.errors import EdgeCapError


class TrainingError(EdgeCapError):
    """The loss is no number, or a checkpoint cannot be written; what was saved before is whole."""
