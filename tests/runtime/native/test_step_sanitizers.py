"""The CPU steps, without Python, under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

from pathlib import Path

from sanitizers import check_sound

SOURCES = ["beam_cpu.cpp", "step_attention.cpp", "step_decoder.cpp", "step_float.cpp"]
SOURCES += ["step_int8.cpp", "step_int8_arm.cpp", "step_int8_x86.cpp", "step_pack.cpp"]
SOURCES += ["step_pool.cpp", "step_rows.cpp"]


def test_the_steps_are_sound_under_sanitizers(tmp_path: Path) -> None:
    check_sound(Path(__file__).with_name("step_sanitizer.cpp"), SOURCES, tmp_path, 200)
