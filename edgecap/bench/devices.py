"""Devices that projections are made for: what their makers state, and what is assumed of them.

Rates of a maker are peaks: no program reaches them. NVIDIA states int8 with sparsity for Jetson;
the table has the dense half of it, and half of that for fp16, as tensor cores of Ampere have.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecap.runtime.errors import OptionsError

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Device:
    """A device.

    bandwidth : of its memory, GB/s (10^9 bytes a second)
    fp32, fp16, int8 : peak rates of dense products, 10^9 operations a second, a multiply-add
        being two
    launch_us : from the end of one kernel (or node) to the start of the next, assumed
    host : time of one thread of its CPU over one of the machine that calibrated, assumed
    share : of the roofline that kernels reach, assumed; None takes what was measured on a CPU
    processors : multiprocessors of a GPU, or cores
    source : where bandwidth and rates come from
    """

    key: str
    name: str
    bandwidth: float
    fp32: float
    fp16: float
    int8: float
    launch_us: float
    host: float
    processors: int
    source: str
    share: float | None = 0.5
    gpu: bool = True

    def peak(self, precision: str) -> float:
        """Operations a second. precision : one of ``PRECISIONS``"""
        return float(getattr(self, precision)) * 1e9

    @property
    def kind(self) -> str:
        """ "jetson", "server" or "cpu"."""
        if not self.gpu:
            return "cpu"
        return "server" if self.bandwidth > 1000 else "jetson"


_ORIN = "Jetson Orin {} series data sheet (NVIDIA)"
DEVICES = (
    Device(
        *("orin-nano", "Orin Nano 8 GB", 68.0, 1280.0, 10_000.0, 20_000.0, 4.0, 3.0, 8),
        source=_ORIN.format("Nano") + ": 1,024 cores at 625 MHz, 40 TOPS sparse, 20 dense",
    ),
    Device(
        *("orin-nano-super", "Orin Nano Super", 102.0, 2089.0, 16_750.0, 33_500.0, 4.0, 2.7, 8),
        source="Jetson Orin Nano Super data sheet (NVIDIA): 1,020 MHz, 67 TOPS sparse",
    ),
    Device(
        *("orin-nx", "Orin NX 16 GB", 102.4, 1880.0, 15_000.0, 30_000.0, 4.0, 2.3, 8),
        source=_ORIN.format("NX") + ": 1,024 cores at 918 MHz; int8 by its clock from the Nano's",
    ),
    Device(
        *("agx-orin", "AGX Orin", 204.8, 5300.0, 42_500.0, 85_000.0, 4.0, 2.1, 16),
        source="Jetson AGX Orin technical brief (NVIDIA): 5.3 TFLOPS, GPU 170 TOPS sparse",
    ),
    Device(
        *("thor", "Thor", 273.0, 8038.0, 258_000.0, 517_000.0, 4.0, 1.6, 20),
        source="Jetson AGX Thor (NVIDIA): 2,560 cores at 1.57 GHz, 2,070 TFLOPS FP4 sparse; fp16 "
        "and int8 are an eighth and a quarter of it",
    ),
    Device(
        *("rpi5", "Raspberry Pi 5", 17.1, 153.6, 307.2, 614.4, 1.0, 2.5, 4),
        source="Raspberry Pi 5 product brief: four Cortex-A76 at 2.4 GHz, LPDDR4X-4267 of 32 bits; "
        "rates from two 128-bit pipes a core (Arm's Cortex-A76 optimisation guide)",
        share=None,
        gpu=False,
    ),
    Device(
        *("h200", "H200", 4800.0, 67_000.0, 989_000.0, 1_979_000.0, 1.5, 1.0, 132),
        source="H200 SXM data sheet (NVIDIA), without sparsity",
    ),
)
BY_KEY = {device.key: device for device in DEVICES}


def find_device(key: str) -> Device:
    """A device by its key. Raises ``OptionsError`` that lists them all."""
    if key not in BY_KEY:
        raise OptionsError(f"device is {key!r}; give one of {', '.join(BY_KEY)}")
    return BY_KEY[key]
