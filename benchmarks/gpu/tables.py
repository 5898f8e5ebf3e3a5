"""The tables of docs/gpu.md that are computed: floors, the projection, launches.

    python benchmarks/gpu/tables.py             prints them
    python benchmarks/gpu/tables.py --write     puts them into docs/gpu.md

A test compares the page with what this prints.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from edgecap.bench.devices import BY_KEY
from edgecap.bench.step_cost import MODELS, TOKENS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gpu.md"
LAUNCHES = ROOT / "benchmarks" / "records" / "gpu_launches.json"
MEASURED = ROOT / "benchmarks" / "records" / "gpu.json"
BEAMS = 4
BOARDS = tuple(BY_KEY[key] for key in ("orin-nano", "orin-nano-super", "agx-orin", "thor", "h200"))


def tables() -> dict[str, str]:
    """Name -> Markdown."""
    return {
        "floors": floors(),
        "projection": projection(),
        "launches": launches(),
        "measured": measured(),
    }


def floors() -> str:
    """Bytes a step over bandwidth."""
    rows = []
    for made in MODELS:
        cost = made()
        size = cost.bytes_a_step()
        times = [f"{size / board.bandwidth / 1e6:.3f}" for board in BOARDS]
        rows.append([cost.name, f"{size / 1e6:.1f} MB", *times])
    boards = [f"{board.name}, {board.bandwidth:g} GB/s" for board in BOARDS]
    return table(["fp16, one row", "read a step", *boards], rows)


def projection() -> str:
    """The decode of a caption: floor, and what is projected."""
    rows = []
    for made in MODELS:
        cost = made()
        times = []
        for board in BOARDS:
            least = cost.floor_ms(board, beams=BEAMS)
            times.append(f"{least:.2f} / **{cost.projected_ms(board, beams=BEAMS):.1f}**")
        rows.append([cost.name, str(cost.launches), *times])
    heads = [f"fp16, K = {BEAMS}, {TOKENS} tokens", "kernels a step", *(b.name for b in BOARDS)]
    share = {board.share for board in BOARDS}.pop()
    gaps = {board.kind: f"{board.launch_us:g} µs" for board in BOARDS}
    return table(heads, rows) + (
        f"\n\nProjected = floor / {share:g} + {TOKENS} steps of kernels, each {gaps['jetson']} "
        f"after the last on a Jetson and {gaps['server']} on a server. Both are assumptions."
    )


def launches() -> str:
    """From the record that launches.py writes."""
    record = json.loads(LAUNCHES.read_text())
    bundle, gpt2 = record["bundle"], record["gpt2_12_layers"]
    calls = bundle["tensorrt_calls_a_step"]
    tokens = record["tokens"]
    nodes = bundle["onnxruntime_nodes_a_step"]
    others = sum(calls.values()) - calls["waits"]
    words = gpt2["transformers"]
    rows = [
        [
            f"transformers {words['transformers']} `generate`, GPT-2 of 12 layers",
            f"{words['operations_a_caption']:,}",
            f"{words['values_read_by_the_host']}",
        ],
        [
            "ONNX Runtime, default bundle",
            f"{tokens} x {nodes} = {tokens * nodes:,}",
            f"{tokens}",
        ],
        [
            "TensorRT steps, default bundle",
            f"{tokens} x {others} calls; kernels inside the engine: not known before it runs",
            f"{tokens * calls['waits']}",
        ],
        [
            "own decoder, default bundle",
            f"1 (a graph of {bundle['own_kernels_a_step']} kernels a step)",
            "1, at the end",
        ],
        [
            "own decoder, GPT-2 of 12 layers",
            f"1 (a graph of {gpt2['own_kernels_a_step']} kernels a step)",
            "1, at the end",
        ],
    ]
    return table(
        [f"K = {record['beams']}, {tokens} tokens", "launches a caption", "waits of the host"], rows
    )


def measured() -> str:
    """From the record that run.py writes on a GPU."""
    record = json.loads(MEASURED.read_text())
    if record["status"] != "run":
        return f"**Not run**: {record['why']}."
    return table(
        ["what", "figure"],
        [[name, f"`{json.dumps(figure)}`"] for name, figure in record["verdicts"].items()],
    )


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill(text: str) -> str:
    """The page with each table between its marks."""
    for name, body in tables().items():
        marks = rf"(<!-- {name} -->\n).*?(\n<!-- end -->)"
        text, count = re.subn(
            marks, lambda found, body=body: found[1] + body + found[2], text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"{PAGE.name} has {count} places for the table {name!r}; it needs one")
    return text


@click.command()
@click.option("--write", is_flag=True, help="Change docs/gpu.md.")
def main(write: bool) -> None:
    """Print the tables."""
    if write:
        PAGE.write_text(fill(PAGE.read_text()))
    for name, body in tables().items():
        click.echo(f"{name}\n\n{body}\n")


if __name__ == "__main__":
    main()
