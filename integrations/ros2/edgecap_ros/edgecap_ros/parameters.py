"""The node's parameters: their defaults, what they mean, and the options they become."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from edgecap.runtime.errors import OptionsError

# name -> (default, what it is), as the node declares them
PARAMETERS: dict[str, tuple[Any, str]] = {
    "model": ("default", "Name or path of a bundle."),
    "engine": ("", "What runs the model; empty: the best that runs here."),
    "threads": (0, "CPU threads; 0: the cores, at most 4."),
    "beams": (0, "Beam width; 0: the model's own."),
    "profile": ("", "driving, smart-home, assistive or a YAML file; empty: none."),
    "gate": ("", "auto, none or thumbnail; empty: the profile's, else auto."),
    "min_interval": (-1.0, "Least seconds between captions; negative: the profile's, else 0."),
    "max_age": (-1.0, "Seconds after which an unchanged scene is captioned again; negative: the "
                      "profile's, else 60."),
    "deadline_ms": (0.0, "Decoding ends so long after an image came; 0: never."),
    "unsure": ("", "mark or silent; empty: the profile's, else mark."),
    "image_transport": ("raw", "raw: sensor_msgs/Image on image; compressed: CompressedImage on "
                               "image/compressed."),
    "input_qos": ("SENSOR_DATA", "SENSOR_DATA (best effort) or DEFAULT (reliable)."),
    "input_depth": (1, "Images that wait in the middleware; the newest wins anyway."),
    "output_qos": ("DEFAULT", "DEFAULT (reliable) or SENSOR_DATA (best effort)."),
    "output_depth": (10, "Captions that are kept for slow readers."),
    "output_durability": ("volatile", "transient_local: late readers get the last captions."),
    "describe_timeout": (5.0, "Seconds that ~/describe waits for an image and its caption."),
    "diagnostics_period": (1.0, "Seconds between messages on /diagnostics; 0: none."),
    "silent_after": (5.0, "Seconds without an image after which diagnostics warn."),
    "autostart": (True, "Configure and activate at the start, without a lifecycle manager."),
}  # fmt: skip
QOS = ("SENSOR_DATA", "DEFAULT")


@dataclass(frozen=True)
class NodeOptions:
    """The parameters, checked; names and meanings as in ``PARAMETERS``."""

    model: str = "default"
    engine: str = ""
    threads: int = 0
    beams: int = 0
    profile: str = ""
    gate: str = ""
    min_interval: float = -1.0
    max_age: float = -1.0
    deadline_ms: float = 0.0
    unsure: str = ""
    image_transport: str = "raw"
    input_qos: str = "SENSOR_DATA"
    input_depth: int = 1
    output_qos: str = "DEFAULT"
    output_depth: int = 10
    output_durability: str = "volatile"
    describe_timeout: float = 5.0
    diagnostics_period: float = 1.0
    silent_after: float = 5.0
    autostart: bool = True

    def __post_init__(self) -> None:
        for name, accepted in (
            ("image_transport", ("raw", "compressed")),
            ("input_qos", QOS),
            ("output_qos", QOS),
            ("output_durability", ("volatile", "transient_local")),
        ):
            value = getattr(self, name)
            if value not in accepted:
                raise OptionsError(f"{name} is {value!r}; give one of {', '.join(accepted)}")
        for name in ("input_depth", "output_depth"):
            if not 1 <= getattr(self, name) <= 10_000:
                raise OptionsError(f"{name} is {getattr(self, name)}; give 1 to 10000")
        for name in ("threads", "beams", "deadline_ms", "diagnostics_period"):
            if not getattr(self, name) >= 0:
                raise OptionsError(f"{name} is {getattr(self, name)}; give 0 or more")
        for name in ("describe_timeout", "silent_after"):
            if not 0.0 < getattr(self, name) <= 3600.0:
                raise OptionsError(f"{name} is {getattr(self, name)}; give seconds up to 3600")

    @property
    def topic(self) -> str:
        """Topic of the images, before remapping."""
        return "image/compressed" if self.image_transport == "compressed" else "image"

    def stream(self) -> dict[str, Any]:
        """Options of the stream, None where the profile or the default holds."""
        return {
            "gate": self.gate or None,
            "min_interval": self.min_interval if self.min_interval >= 0.0 else None,
            "max_age": self.max_age if self.max_age >= 0.0 else None,
            "deadline": self.deadline_ms / 1e3 or None,
            "unsure": self.unsure or None,
        }

    def loading(self) -> dict[str, Any]:
        """Arguments of ``edgecap.load``."""
        return {
            "model": self.model,
            "threads": self.threads or None,
            "engine": self.engine or None,
        }


def node_options(values: dict[str, Any]) -> NodeOptions:
    """Options of the values that parameters have.

    Raises OptionsError with the parameter's name, what was given and what is accepted.
    """
    known = {field.name for field in fields(NodeOptions)}
    return NodeOptions(**{name: value for name, value in values.items() if name in known})
