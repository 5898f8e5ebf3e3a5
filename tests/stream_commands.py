"""``edgecap stream`` in a process of its own, with a captioner that a test makes up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Stream = Callable[..., "subprocess.CompletedProcess[str]"]


def stream_command(code: str, folder: Path) -> Stream:
    """Runs ``code``, which runs the command line, with the words of a call, in ``folder``."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, "stream", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
        )

    return run
