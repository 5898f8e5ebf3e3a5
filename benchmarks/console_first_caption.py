"""How soon the web console shows a caption after it is opened, and how old captions are on screen.

    python benchmarks/console_first_caption.py clip.mp4 --out benchmarks/records/console.json

A real server and a real Chromium on one machine; every opening is a new browser.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, write_atomically

LIMITS = {"first_caption_s": 2.0, "picture_to_caption_ms": 300.0}


def open_browser() -> Any:
    """A new Chromium with nothing in its cache."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.page_load_strategy = "none"
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


WATCH = """
globalThis.seen = {first: null, delays: []};
addEventListener("DOMContentLoaded", () => {
  const caption = document.getElementById("caption"), delay = document.getElementById("delay");
  new MutationObserver(() => {
    if (seen.first === null && caption.textContent.trim()) seen.first = performance.now();
  }).observe(caption, {childList: true, characterData: true, subtree: true});
  new MutationObserver(() => seen.delays.push(parseFloat(delay.textContent)))
    .observe(delay, {childList: true, characterData: true, subtree: true});
});
"""


def one_opening(address: str, seconds: float) -> dict[str, Any]:
    """Milliseconds from the start of the page's load to its first caption; delays it showed."""
    browser = open_browser()
    try:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        browser.get(address)
        time.sleep(seconds)
        seen: dict[str, Any] = browser.execute_script("return globalThis.seen")
        return seen
    finally:
        browser.quit()


@click.command()
@click.argument("source")
@click.option("--openings", type=int, default=8, show_default=True)
@click.option("--seconds", type=float, default=8.0, show_default=True, help="Of each opening.")
@click.option("--out", type=click.Path(path_type=Path))
def main(source: str, openings: int, seconds: float, out: Path | None) -> None:
    """Open the console over SOURCE again and again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    arguments = ["serve", "--source", source, "--min-interval", "0.2", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "edgecap", *arguments])
    try:
        while server.poll() is None:
            try:
                with urllib.request.urlopen(f"{address}v1/status") as answer:
                    status = json.load(answer)
            except OSError:
                time.sleep(0.2)
                continue
            if status["captions"] > 0:
                break
            time.sleep(0.2)
        else:
            raise click.ClickException(f"the server ended with {server.returncode}")
        seen = [one_opening(address, seconds) for _ in range(openings)]
    finally:
        server.terminate()
        server.wait()
    first = [each["first"] / 1e3 for each in seen if each["first"] is not None]
    delays = np.array([delay for each in seen for delay in each["delays"]])
    record = {
        "command": command("benchmarks/console_first_caption.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "source": Path(source).name,
        "engine": status["engine"],
        "openings": openings,
        "without_a_caption": openings - len(first),
        "first_caption_s": {"median": round(float(np.median(first)), 3), "most": max(first)},
        "picture_to_caption_ms": {
            "shown": len(delays),
            "median": round(float(np.median(delays)), 1),
            "p99": round(float(np.percentile(delays, 99)), 1),
        },
        "limits": LIMITS,
    }
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    if out is not None:
        write_atomically(out, text)
    click.echo(text)


if __name__ == "__main__":
    main()
