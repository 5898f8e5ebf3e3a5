"""The C++ of the metrics, without Python, under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from sanitizers import check_sound


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_metrics_are_sound_under_sanitizers(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("metrics_sanitizer.cpp")
    check_sound(driver, ["cider.cpp", "meteor.cpp"], tmp_path, 280)
