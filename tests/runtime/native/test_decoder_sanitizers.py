"""The decoder kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

from pathlib import Path

from sanitizers import check_sound


def test_whole_captions_and_damaged_descriptions_are_sound(tmp_path: Path) -> None:
    check_sound(Path(__file__).with_name("decoder_driver.cpp"), [], tmp_path, 280)
