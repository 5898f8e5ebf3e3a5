"""Image encoders by name; a module is imported when its encoder is asked for."""

from __future__ import annotations

import importlib

from edgecap.runtime.errors import DataError
from edgecap.training.models.encoders.base import EncoderOptions, Features, ImageEncoder

# Name -> module with ``make(options) -> ImageEncoder``.
ENCODERS = {
    "mobilenet-edgetpu": "edgecap.training.models.encoders.mobilenet_edgetpu",
}

__all__ = ["ENCODERS", "EncoderOptions", "Features", "ImageEncoder", "make_encoder"]


def make_encoder(options: EncoderOptions, *, pretrained: bool = True) -> ImageEncoder:
    """Build an encoder and, unless told not to, load the weights its options name."""
    if options.name not in ENCODERS:
        raise DataError(f"unknown encoder {options.name!r}; give one of {', '.join(ENCODERS)}")
    encoder: ImageEncoder = importlib.import_module(ENCODERS[options.name]).make(options)
    encoder.made_with = options
    if pretrained and options.weights:
        encoder.load_pretrained(options.weights)
    return encoder
