"""Image encoders by name; a module is imported when its encoder is asked for."""

from __future__ import annotations

import importlib
from dataclasses import asdict, replace

from edgecap.runtime.errors import DataError
from edgecap.training.models.encoders.base import EncoderOptions, Features, ImageEncoder

# Name -> module with ``make(options) -> ImageEncoder``. Where its encoders have settings it has
# ``STANDARD``, name -> the settings as published; where published weights come in several sizes,
# ``settings_of(weights) -> dict``.
ENCODERS = {
    "mobilenet-edgetpu": "edgecap.training.models.encoders.mobilenet_edgetpu",
    "mobilenet-v2": "edgecap.training.models.encoders.mobilenet_v2",
    "resnet50": "edgecap.training.models.encoders.resnet",
    "resnet101": "edgecap.training.models.encoders.resnet",
    "vgg16": "edgecap.training.models.encoders.vgg",
    "vit": "edgecap.training.models.encoders.vit",
    "clip-vision": "edgecap.training.models.encoders.clip_vision",
    "patches": "edgecap.training.models.encoders.patches",
}

__all__ = ["ENCODERS", "EncoderOptions", "Features", "ImageEncoder", "make_encoder"]


def make_encoder(options: EncoderOptions, *, pretrained: bool = True) -> ImageEncoder:
    """Build an encoder and, unless told not to, load the weights its options name.

    ``made_with`` of the encoder holds all its settings, so that it can be built again without the
    weights. Raises DataError for an unknown name or setting and for weights that do not fit,
    MissingExtraError where a package is missing.
    """
    if options.name not in ENCODERS:
        raise DataError(f"unknown encoder {options.name!r}; give one of {', '.join(ENCODERS)}")
    module = importlib.import_module(ENCODERS[options.name])
    load = pretrained and bool(options.weights)
    if options.settings and not hasattr(module, "STANDARD"):
        raise DataError(f"{options.name} has no settings, {', '.join(options.settings)} was given")
    if load and hasattr(module, "settings_of"):
        found = module.settings_of(options.weights)
        options = replace(options, settings=found | options.settings)
    encoder: ImageEncoder = module.make(options)
    settings = getattr(encoder, "settings", None)
    encoder.made_with = replace(options, settings=asdict(settings)) if settings else options
    if load:
        encoder.load_pretrained(options.weights)
    return encoder
