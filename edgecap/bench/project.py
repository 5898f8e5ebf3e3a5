"""Latency on a device that is not here: roofline, launches, host. Always a projection.

    ms = work / share + launches x time of a launch + host x its factor

On a CPU the work is bytes over bandwidth and operations over peak, one after the other: kernels as
small as these hide little of either behind the other. Rates are those that the device's maker
states. The share is what the engines reached on the machine of the calibration, for encoder and
step, int8 and float; the method was then checked there on other models, beams and threads. On a GPU
the work is the floor of each product, and share and launches are assumed, see ``devices``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from edgecap.bench.devices import Device
from edgecap.bench.floors import (
    Work,
    decoder_cost,
    decoder_work,
    graph_work,
    own_encoder,
    own_step,
)
from edgecap.bench.graph_cost import GraphCost, count_graph
from edgecap.bench.step_cost import TOKENS, bundle_cost
from edgecap.runtime.bundle import Bundle
from edgecap.runtime.errors import EngineError, OptionsError

FILE = "calibration.json"
MOST_BEAMS = 64


@dataclass(frozen=True)
class Shares:
    """Of the work in the measured time, for graphs in int8 and in float; 1 at most."""

    int8: float
    floating: float

    def of(self, work: Work) -> float:
        """The one for some work."""
        return self.int8 if work.integer else self.floating


@dataclass(frozen=True)
class Calibration:
    """What was measured once, and how far the method was off on what it had not seen.

    encoder, step : shares of the two parts of a caption
    host_ms : of a caption outside encoder and decoder: resize, text, Python
    checks : number of predictions; error and worst : median and largest |predicted / measured - 1|
    machine : what it was measured on
    """

    encoder: Shares
    step: Shares
    host_ms: float
    checks: int
    error: float
    worst: float
    machine: str
    date: str

    def said(self, device: Device) -> str:
        """The error in a sentence, to print beside a projection."""
        text = (
            f"on the CPU that calibrated it ({self.machine}) the method was off by "
            f"{self.error:.0%} in the median and {self.worst:.0%} at worst of {self.checks} "
            "predictions of other models, beams and threads"
        )
        if device.gpu:
            return f"{text}; no GPU was measured, so the GPU part of the method is unchecked"
        return f"{text}; no {device.name} was measured"


def read_calibration() -> Calibration:
    """The calibration that comes with the package."""
    return calibration(json.loads(resources.files("edgecap.bench").joinpath(FILE).read_text()))


def calibration(found: Mapping[str, Any]) -> Calibration:
    """A calibration out of JSON."""
    parts = {name: Shares(**found[name]) for name in ("encoder", "step")}
    return Calibration(**{**found, **parts})


@dataclass(frozen=True)
class Stage:
    """A part of a caption, milliseconds. runs : of its graph"""

    name: str
    floor_ms: float
    projected_ms: float
    runs: int
    by: str


@dataclass(frozen=True)
class Projection:
    """A caption on a device, by stage. ``label`` says what this is."""

    model: str
    device: Device
    precision: str
    beams: int
    tokens: int
    stages: tuple[Stage, ...]
    error: str
    label: str = "projection, not a measurement"

    @property
    def floor_ms(self) -> float:
        """What the device's rates allow at best."""
        return sum(stage.floor_ms for stage in self.stages)

    @property
    def projected_ms(self) -> float:
        """Picture in memory to caption."""
        return sum(stage.projected_ms for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        stages = [asdict(stage) for stage in self.stages]
        for stage in stages:
            stage |= {key: round(stage[key], 4) for key in ("floor_ms", "projected_ms")}
        return {
            "label": self.label,
            "model": self.model,
            "device": asdict(self.device),
            "precision": self.precision,
            "beams": self.beams,
            "tokens": self.tokens,
            "stages": stages,
            "floor_ms": round(self.floor_ms, 4),
            "projected_ms": round(self.projected_ms, 4),
            "error": self.error,
        }


def predict_ms(work_ms: float, share: float, launches: int, launch_us: float) -> float:
    """One run of some work: the method."""
    return work_ms / share + launches * launch_us / 1e3


def project(
    bundle: Bundle,
    device: Device,
    *,
    beams: int = 4,
    tokens: int = TOKENS,
    calibration: Calibration | None = None,
) -> Projection:
    """Project a caption of ``tokens`` decoder steps with ``beams``.

    A GPU runs fp16 with this project's CUDA decoder where it takes the model, one graph a step
    where not; a CPU runs the bundle as it is, its decoder in int8. Needs the package onnx. Raises
    ``OptionsError`` for bad beams and tokens, ``EngineError`` for a graph that is not counted.
    """
    if not 1 <= beams <= MOST_BEAMS:
        raise OptionsError(f"beams is {beams}; give 1 to {MOST_BEAMS}")
    if not 1 <= tokens <= bundle.manifest.max_positions:
        limit = bundle.manifest.max_positions
        raise OptionsError(
            f"tokens is {tokens}; {bundle.manifest.name} has {limit} positions, give 1 to {limit}"
        )
    known = calibration or read_calibration()
    if device.gpu:
        stages = _gpu_stages(bundle, device, beams, tokens)
    else:
        stages = _cpu_stages(bundle, device, beams, tokens, known)
    host = Stage("host", 0.0, known.host_ms * device.host, 1, "resize and text, from this CPU's")
    precision = "fp16" if device.gpu else "as the bundle's graphs are"
    name = bundle.manifest.name
    return Projection(name, device, precision, beams, tokens, (host, *stages), known.said(device))


def _cpu_stages(
    bundle: Bundle, device: Device, beams: int, tokens: int, known: Calibration
) -> tuple[Stage, ...]:
    """By own kernels, or by ONNX Runtime where they do not compute a graph."""
    encoder = own_encoder(bundle)
    try:
        step = own_step(bundle, beams=beams, tokens=tokens)
        by = step.name.removeprefix("step, ")
    except EngineError:
        step, by = decoder_work(bundle, beams), "ONNX Runtime"
    return (
        _stage("encoder", encoder, device, known.encoder, 1, encoder.name[9:]),
        _stage("decoder", step, device, known.step, tokens, by),
    )


def _stage(name: str, work: Work, device: Device, shares: Shares, runs: int, by: str) -> Stage:
    arithmetic = work.integer / device.peak("int8") + work.floating / device.peak("fp32")
    memory = work.read / device.bandwidth / 1e9
    floor = max(memory, arithmetic) * 1e3
    once = predict_ms((memory + arithmetic) * 1e3, shares.of(work), work.launches, device.launch_us)
    return Stage(name, runs * floor, runs * once, runs, by)


def _gpu_stages(bundle: Bundle, device: Device, beams: int, tokens: int) -> tuple[Stage, ...]:
    share = device.share or 1.0
    data = bundle.files[bundle.manifest.graphs.encoder.file]
    encoder = _half_stage("encoder", count_graph(data, {"B": 1}), device, share, 1)
    try:
        cost = bundle_cost(bundle)
    except EngineError:
        return encoder, _half_stage("decoder", decoder_cost(bundle, beams), device, share, tokens)
    floor = cost.floor_ms(device, tokens, beams=beams)
    projected = cost.projected_ms(device, tokens, beams=beams)
    by = "own CUDA kernels, a caption a launch"
    return encoder, Stage("decoder", floor, projected, tokens, by)


def _half_stage(name: str, cost: GraphCost, device: Device, share: float, runs: int) -> Stage:
    """A graph in fp16, a launch for each product, each reading and writing its own memory."""
    work = graph_work(name, cost)
    operations = (work.integer + work.floating) / device.peak("fp16")
    size = 2.0 * cost.weights + cost.interface
    floor = max(size / device.bandwidth / 1e9, operations) * 1e3
    apart = 1e3 * sum(
        max(
            product.operations / device.peak("fp16"),
            2.0 * (product.weights + product.moved) / device.bandwidth / 1e9,
        )
        for product in cost.products
    )
    once = predict_ms(apart, share, len(cost.products), device.launch_us)
    return Stage(name, runs * floor, runs * once, runs, "fp16, a kernel for each product")
