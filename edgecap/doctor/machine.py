"""The machine without its GPU: processor, memory, board, packages, cameras, GStreamer, ROS."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgecap.runtime.engines.cuda_memory import megabytes

# Of these the instructions matter that ONNX Runtime's integer and half kernels use.
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
NVIDIA_ELEMENTS = ("nvv4l2decoder", "nvarguscamerasrc", "nvvidconv", "nvh264dec")
ROOT = Path("/")


def machine_facts(root: Path = ROOT) -> dict[str, str]:
    """Title -> what is here, in words. root : where /etc, /dev, /proc and /sys are looked for."""
    return {
        "edgecap": package_version("edgecap"),
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "board": board(root),
        "jetpack": jetpack(root),
        "power mode": power_mode(),
        "cpu": processor(root),
        "memory": memory(root),
        "onnxruntime": onnxruntime(),
        "video": video(),
        "gstreamer": gstreamer(),
        "cameras": cameras(root),
        "ros": ros(root),
    }


def output(words: Sequence[str], seconds: float = 10.0) -> str:
    """What a program prints on standard output; empty where it is absent or fails."""
    program = shutil.which(words[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *words[1:]], capture_output=True, text=True, timeout=seconds, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def package_version(package: str) -> str:
    """Of an installed distribution; empty where it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def text_of(path: Path) -> str:
    """A small file's text; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def board(root: Path = ROOT) -> str:
    """The name of the board, as the device tree or the firmware has it."""
    tree = text_of(root / "proc/device-tree/model")
    return tree or text_of(root / "sys/class/dmi/id/product_name") or "unknown"


def jetpack(root: Path = ROOT) -> str:
    """JetPack's version and that of Jetson Linux (L4T) below it."""
    release = text_of(root / "etc/nv_tegra_release")
    found = re.search(r"R(\d+)[^,]*,\s*REVISION:\s*([\d.]+)", release)
    if not release:
        return "none: no Jetson"
    linux = f"Jetson Linux {found[1]}.{found[2]}" if found else release.splitlines()[0]
    name = output(["dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack"])
    return f"JetPack {name}, {linux}" if name else f"{linux}; nvidia-jetpack is not installed"


def power_mode() -> str:
    """What ``nvpmodel -q`` says: a Jetson in a small mode is several times slower."""
    if shutil.which("nvpmodel") is None:
        return "no nvpmodel"
    lines = output(["nvpmodel", "-q"]).splitlines()
    named = [line.partition(":")[2].strip() for line in lines if "power mode" in line.lower()]
    return next((name for name in named if name), "") or " ".join(lines) or "nvpmodel does not say"


def processor(root: Path = ROOT) -> str:
    """Its name, threads and the instructions that matter."""
    facts: dict[str, str] = {}
    for line in text_of(root / "proc/cpuinfo").splitlines():
        title, _, text = line.partition(":")
        facts.setdefault(title.strip().lower(), text.strip())
    flags = set((facts.get("flags") or facts.get("features") or "").split())
    known = [flag for flag in CPU_FLAGS if flag in flags]
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} threads; {', '.join(known) or 'no flags known'}"


def memory(root: Path = ROOT) -> str:
    """Free and all memory of the machine, and its swap."""
    facts = dict(re.findall(r"^(\w+):\s+(\d+) kB", text_of(root / "proc/meminfo"), re.MULTILINE))
    if not {"MemAvailable", "MemTotal"} <= facts.keys():
        return "unknown"
    size = {name: megabytes(int(kilobytes) * 1024) for name, kilobytes in facts.items()}
    swap = f"; swap {size['SwapTotal']}" if int(facts.get("SwapTotal", 0)) else "; no swap"
    return f"{size['MemAvailable']} of {size['MemTotal']} free{swap}"


def onnxruntime() -> str:
    """Its version and execution providers."""
    import onnxruntime as ort

    return f"{ort.__version__}; {', '.join(ort.get_available_providers())}"


def video() -> str:
    """What OpenCV reads frames with."""
    import cv2

    ways = cv2.videoio_registry.getCameraBackends() + cv2.videoio_registry.getStreamBackends()
    here = {way for way in ways if cv2.videoio_registry.hasBackend(way)}
    names = sorted(cv2.videoio_registry.getBackendName(way) for way in here)
    return f"OpenCV {cv2.__version__}; {', '.join(names)}"


def gstreamer() -> str:
    """Its version, NVIDIA's elements, and whether Python reaches it."""
    lines = output(["gst-launch-1.0", "--version"]).splitlines()
    if not lines:
        return "no gst-launch-1.0"
    told = [lines[0].removeprefix("gst-launch-1.0 version ")]
    if shutil.which("gst-inspect-1.0"):
        exist = [e for e in NVIDIA_ELEMENTS if _succeeds(["gst-inspect-1.0", "--exists", e])]
        told.append("elements " + ", ".join(exist) if exist else "no NVIDIA elements")
    told.append("PyGObject" if importlib.util.find_spec("gi") else "no PyGObject in this Python")
    return "; ".join(told)


def cameras(root: Path = ROOT) -> str:
    """V4L2 devices by name, and whether the daemon of a Jetson's CSI cameras runs."""
    found = []
    for device in sorted((root / "dev").glob("video*")):
        name = text_of(root / "sys/class/video4linux" / device.name / "name")
        allowed = os.access(device, os.R_OK | os.W_OK)
        text = f"/dev/{device.name}" + (f" ({name})" if name else "")
        found.append(text if allowed else f"{text}, no permission: join the group video")
    if (root / "tmp/argus_socket").exists():
        found.append("CSI by nvargus-daemon")
    return ", ".join(found) or "none"


def ros(root: Path = ROOT) -> str:
    """The ROS of this shell, those installed, and whether Python has rclpy."""
    here = os.environ.get("ROS_DISTRO", "")
    installed = sorted(path.name for path in (root / "opt/ros").glob("*") if path.is_dir())
    if not here and not installed:
        return "none"
    told = [f"{here} is sourced" if here else "none is sourced: . /opt/ros/NAME/setup.sh"]
    told += [f"installed: {', '.join(installed)}"] if installed else []
    told.append("rclpy" if importlib.util.find_spec("rclpy") else "no rclpy in this Python")
    return "; ".join(told)


def _succeeds(words: Sequence[str]) -> bool:
    try:
        return subprocess.run(words, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
