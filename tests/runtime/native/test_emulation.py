"""The CPU emulation of CUDA runs kernels with known answers, under sanitizers."""

from __future__ import annotations

from pathlib import Path

from sanitizers import check_sound


def test_known_kernels_under_sanitizers(tmp_path: Path) -> None:
    check_sound(Path(__file__).with_name("emulation_driver.cpp"), [], tmp_path, 120)
