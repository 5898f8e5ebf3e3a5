"""How often a verified draft is what beam search would have found, and what it costs.

    python benchmarks/stream_draft.py CLIPS --out benchmarks/records/stream_draft.json

Pairs of frames of the clips in the folder CLIPS: the caption of the first is verified against the
second, which is decoded with beam search, too. ``agree``: of the kept drafts, how many were the
beam's own sentence; ``regret``: how much better (nats a token, by the model's own score) the
beam's sentence was on average over all kept drafts, those that agree counted as 0.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, spread, write_atomically

import edgecap
from edgecap.runtime.caption import Caption
from edgecap.runtime.streams import open_source
from edgecap.runtime.streams.describe import select
from edgecap.runtime.streams.draft import BEHIND, FALL, Verifier, draft_of

GAPS = (1, 2, 4, 8, 16)  # frames between the two of a pair
FRAMES = 90  # of each clip
BANDS = ((0.85, 0.9), (0.9, 0.95), (0.95, 0.97), (0.97, 0.99), (0.99, 1.01))


@click.command()
@click.argument("clips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(clips: Path, out: Path | None) -> None:
    """Verify captions of frames against later frames."""
    captioner = edgecap.load()
    verifier = Verifier(captioner)
    options = captioner.options(num_return_sequences=2)
    rows: list[tuple[float, bool, bool, float]] = []
    for path in sorted(clips.glob("*.mp4")):
        rows += pairs(path, captioner, verifier, options)
    bands = {}
    for low, high in BANDS:
        band = [row for row in rows if low <= row[0] < high]
        kept = [row for row in band if row[1]]
        bands[f"cosine {low:g} to {min(high, 1.0):g}"] = {
            "pairs": len(band),
            "beam_repeats_itself": _share([row[2] for row in band]),
            "kept": _share([row[1] for row in band]),
            "agree": _share([row[2] for row in kept]),
            "regret": round(float(np.mean([row[3] for row in kept])), 4) if kept else None,
        }
    record = {
        "command": command("benchmarks/stream_draft.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": captioner.name,
        "rule": {"fall": FALL, "behind": BEHIND},
        "bands": bands,
        "cost_ms": cost(next(iter(sorted(clips.glob("street*.mp4")))), captioner, verifier),
    }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps(record, indent=1))


def pairs(
    path: Path, captioner: Any, verifier: Verifier, options: Any
) -> list[tuple[float, bool, bool, float]]:
    """(cosine, kept, beam found the same, regret) of pairs of one clip's frames."""
    with open_source(path, realtime=False) as source:
        frames = [frame.image for frame, _ in zip(source, range(FRAMES), strict=False)]
    encoded = [
        captioner.engine.encode(captioner.resize(image)[None, ..., ::-1].copy()) for image in frames
    ]
    captions: list[Caption] = [captioner.decode(each, options)[0] for each in encoded]
    found = []
    for gap in GAPS:
        for first in range(0, len(frames) - gap, 3):
            second = first + gap
            before, after = encoded[first].features, encoded[second].features
            cosine = float((before[0] * after[0]).sum())
            draft = draft_of(captions[first], encoded[first])
            if cosine < BANDS[0][0] or draft is None:
                continue
            kept = verifier.verify(draft, select(encoded[second], [0]), options)
            same = captions[first].tokens == captions[second].tokens
            regret = 0.0
            if isinstance(kept, Caption) and not same:
                regret = captions[second].score - kept.score
            found.append((cosine, isinstance(kept, Caption), same, regret))
    return found


def cost(path: Path, captioner: Any, verifier: Verifier) -> dict[str, dict[str, float]]:
    """Milliseconds on one picture; a first verification costs two, for it scores both pictures."""
    with open_source(path, realtime=False) as source:
        frame = source.read()
    assert frame is not None
    encoded = captioner.engine.encode(captioner.resize(frame.image)[None, ..., ::-1].copy())
    beam, greedy = captioner.options(num_return_sequences=2), captioner.options(beams=1)
    draft = draft_of(captioner.decode(encoded, beam)[0], encoded)
    assert draft is not None
    calls = {
        "verify": lambda: verifier.verify(draft, encoded, beam),
        "greedy": lambda: captioner.decode(encoded, greedy),
        "beam": lambda: captioner.decode(encoded, beam),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(120):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: spread(np.array(values[20:])) for name, values in times.items()}


def _share(values: list[bool]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


if __name__ == "__main__":
    main()
