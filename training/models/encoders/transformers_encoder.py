"""What the encoders share whose networks are those of the package transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from edgecap.runtime.errors import DataError, EdgeCapError, MissingExtraError
from edgecap.training.models.encoders.layered import LayeredEncoder
from edgecap.training.models.published import match, read_config, read_state


def need_transformers(name: str) -> ModuleType:
    """The package transformers; raises MissingExtraError where it is absent or too old."""
    try:
        import transformers
    except ImportError:
        found = "which is not installed"
    else:
        # The names inside its networks, and so of our checkpoints, changed with version 5.
        if int(transformers.__version__.partition(".")[0]) >= 5:
            return transformers
        found = f"5 or newer; {transformers.__version__} is installed"
    raise MissingExtraError(
        f"the encoder {name} needs the package transformers, {found}; install edgecap[train]"
    )


def read_published(weights: str, names: dict[str, str], section: str = "") -> dict[str, Any]:
    """Settings of published weights, as far as the files beside them tell.

    names : setting -> key of ``config.json``
    section : the part of ``config.json`` that may hold them, such as ``vision_config``
    """
    config = read_config(weights)
    config = config.get(section, config)
    settings = {name: config[key] for name, key in names.items() if key in config}
    pixels = read_config(weights, "preprocessor_config.json")
    for name, key in (("mean", "image_mean"), ("std", "image_std")):
        if key in pixels:
            settings[name] = pixels[key]
    return settings


class TransformersEncoder(LayeredEncoder):
    """``net`` is the transformers model; weights load through its own renaming of old names."""

    net: Any

    def load_pretrained(self, weights: str) -> None:
        self.net.load_state_dict(self.read_network(weights), strict=False)

    def read_network(self, weights: str) -> dict[str, torch.Tensor]:
        """The tensors of ``net`` in published weights, under today's names. Raises DataError."""
        transformers = need_transformers(self.name)
        state = read_state(weights)
        own = self.net.state_dict()
        try:
            with quiet(transformers.logging):
                loaded, report = type(self.net).from_pretrained(
                    None,
                    config=self.net.config,
                    state_dict=state,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{weights} does not load as {self.name}: {error}") from None
        # What is missing was filled with random numbers: that is refused here.
        found = loaded.state_dict()
        for name in report["missing_keys"]:
            found.pop(name, None)
        for mismatch in report["mismatched_keys"]:
            found[mismatch[0]] = torch.empty(mismatch[1], device="meta")
        return match(found, own, weights)


@contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """No progress bar and no report of a published classifier that is left out."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def build(make: Callable[[], Any], name: str) -> Any:
    """A transformers model at random start; raises DataError where its sizes contradict."""
    try:
        return make()
    except EdgeCapError:
        raise
    except Exception as error:  # its checks of a configuration raise many kinds
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"settings of {name} make no network: {line}") from None
