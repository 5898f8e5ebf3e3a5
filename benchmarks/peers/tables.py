"""The tables of benchmarks/results.md that are computed from the records of the peers.

python benchmarks/peers/tables.py             prints them
python benchmarks/peers/tables.py --write     puts them into results.md
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "results.md"
NAMES = {
    "peers_default": "default",
    "peers_vit_gpt2": "vit-gpt2",
    "peers_vit_gpt2_second": "vit-gpt2-second",
    "peers_blip_base": "blip-base",
}
OURS = "edgecap"
HEADS = (
    "4 beams, ms",
    "smallest",
    "step",
    "against the reference",
    "greedy, ms",
    "same captions, 4 beams",
    "peak RSS, GB",
    "first call, s",
)


def tables() -> dict[str, str]:
    """Name -> Markdown, of the records that are there."""
    made = {}
    for file, name in NAMES.items():
        path = ROOT / "records" / f"{file}.json"
        record = json.loads(path.read_text()) if path.is_file() else {}
        if "reference" in record:  # an older record has its table by hand
            made[name] = table(record)
    return made


def table(record: dict[str, Any]) -> str:
    """A row a peer, fastest first; then what could not be timed, and why."""
    four, one = record["beams_4"], record.get("beams_1", {})
    timed = sorted((n for n in four if "ms" in four[n]), key=lambda n: four[n]["ms"]["median"])
    lines = [f"| | {' | '.join(HEADS)} |", "|---" * (len(HEADS) + 1) + "|"]
    for name in timed:
        row, greedy = four[name], one.get(name, {})
        cells = [
            f"{_ms(row['ms'])}",
            f"{row['ms']['min']:.1f}",
            f"{row['step_ms']:.2f}" if "step_ms" in row else "",
            f"{row['times_faster']:.2f}",
            _ms(greedy["ms"]) if "ms" in greedy else "",
            row["same_captions"],
            f"{row['peak_rss_mb'] / 1e3:.2f}",
            f"{row['first_call_ms'] / 1e3:.2f}",
        ]
        shown = f"**{name}**" if name.startswith(OURS) else name
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    lines += ["", verdict(record)]
    reasons = [
        f"- {name}: {' '.join(row['could_not'].split())[:240]}"
        for name, row in four.items()
        if "could_not" in row
    ]
    if reasons:
        lines += ["", "Not timed:", "", *reasons]
    return "\n".join(lines)


def verdict(record: dict[str, Any]) -> str:
    """How far the best of ours is from the best of the others, at each number of beams."""
    parts = []
    for key, beams in (("beams_4", "4 beams"), ("beams_1", "one beam")):
        rows = {n: r["ms"]["median"] for n, r in record.get(key, {}).items() if "ms" in r}
        ours = {n: ms for n, ms in rows.items() if n.startswith(OURS)}
        others = {n: ms for n, ms in rows.items() if n not in ours}
        if not ours or not others:
            continue
        mine, best = min(ours, key=ours.__getitem__), min(others, key=others.__getitem__)
        ratio = others[best] / ours[mine]
        parts.append(f"{beams}: {mine} takes 1/{ratio:.2f} of the time of the best peer, {best}")
    return "; ".join(parts) + "."


def _ms(spread: dict[str, float]) -> str:
    return f"{spread['median']:.1f} ({spread['p99']:.1f})"


def put(page: str, made: dict[str, str]) -> str:
    """The page with each table between its two marks."""
    for name, text in made.items():
        start, end = f"<!-- peers:{name} -->", f"<!-- /peers:{name} -->"
        pattern = re.compile(re.escape(start) + r".*?" + re.escape(end), re.S)
        if not pattern.search(page):
            raise click.ClickException(f"{PAGE.name} has no place for {name}: {start} {end}")
        page = pattern.sub(lambda _, s=start, t=text, e=end: f"{s}\n{t}\n{e}", page)
    return page


@click.command()
@click.option("--write", is_flag=True)
def main(write: bool) -> None:
    """Print the tables, or put them into the page."""
    made = tables()
    if write:
        PAGE.write_text(put(PAGE.read_text(), made))
    else:
        click.echo("\n\n".join(f"{name}\n{text}" for name, text in made.items()))


if __name__ == "__main__":
    main()
