"""What to do about each way in which an engine can fail: one sentence for one kind of verdict."""

from __future__ import annotations

import re

# (what the verdict says, the engines it is about or none for all, what to do), first match counts.
ADVICE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        r"no CUDA driver|no GPU",
        (),
        "nothing, where there is no NVIDIA GPU; else install its driver: JetPack on a Jetson, "
        "--runtime nvidia or --gpus all for a container",
    ),
    (
        r"no TensorRT is installed|no \S*tensorrt\S* is installed",
        (),
        "pip install 'edgecap[gpu]'; on a Jetson make the virtual environment with "
        "--system-site-packages, so that it sees JetPack's TensorRT",
    ),
    (
        r"no code for|compute capability|no kernel image",
        ("cuda",),
        'build the kernels on this machine: docs/gpu.md, "Building the kernels"',
    ),
    (
        r"memory is full|out ?of ?memory|OutOfMemory|were needed",
        (),
        "close other programs, or try again with a smaller model, --precision fp16 or fewer beams; "
        "on a Jetson stop the desktop (sudo init 3); to build, lower build-engine's --workspace",
    ),
    (
        r"needs the package '?(\S+?)'?:|needs cuda-python or PyCUDA",
        (),
        "pip install 'edgecap[gpu]', or 'edgecap[jetson]' on a Jetson",
    ),
    (
        r"has no (CUDA|Tensorrt)ExecutionProvider",
        (),
        "only if you want this engine: pip install onnxruntime-gpu in place of onnxruntime, on a "
        "Jetson NVIDIA's wheel for its JetPack",
    ),
    (
        r"does not start its \w+ExecutionProvider",
        (),
        "install the CUDA, cuDNN and TensorRT that this onnxruntime was built for; its release "
        "notes name them",
    ),
    (
        r"libedgecap_cuda|EDGECAP_CUDA_LIBRARY",
        ("cuda",),
        'build the kernels: docs/gpu.md, "Building the kernels"',
    ),
    (
        r"does not load \S*\.plan|is damaged or cut short",
        ("tensorrt",),
        "delete that plan and run this again; if it fails again, the driver is too old for this "
        "TensorRT, or another program holds the GPU",
    ),
    (
        r"^ran: .* captions (have|of the C\+\+)",
        (),
        "try --precision fp32; if captions still differ, do not use this engine, and report what "
        "edgecap doctor --json prints",
    ),
    (
        r"operator|parse|QDQ|quantiz",
        ("tensorrt",),
        "try --precision fp16; export the model again with this version; report the line above",
    ),
)
OTHERWISE = "run it again with EDGECAP_DEBUG=1, and report what edgecap doctor --json prints"


def advise(verdict: str, engine: str, *, failed: bool) -> str:
    """What to do; empty for a trial that went well and for one that was built only."""
    if verdict.startswith(("ran:", "built only:")) and not failed:
        return ""
    for pattern, engines, text in ADVICE:
        if (not engines or engine in engines) and re.search(pattern, verdict):
            return text
    return OTHERWISE if failed else ""
