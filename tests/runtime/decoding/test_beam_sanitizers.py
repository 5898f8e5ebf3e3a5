"""The C++ core, without Python, under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

from pathlib import Path

from sanitizers import check_sound


def test_the_core_is_sound_under_sanitizers(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("beam_sanitizer.cpp")
    check_sound(driver, ["beam_cpu.cpp", "beam_candidates.cpp", "logit_tiles.cpp"], tmp_path, 120)
