"""How often a kept draft is what beam search would have said, and what drafts save.

    python benchmarks/stream_draft.py CLIPS --out benchmarks/records/stream_draft.json

Every frame (every fourth, ...) of each clip in the folder CLIPS goes the stream's own way, as if
each were to be captioned; each is decoded with beam search besides. ``kept``: share of frames
whose caption was a kept draft; ``agree``: share of those for which beam search says the same;
``passed_agree``: the same of all drafts that passed, kept or not, which is what a draft would be
worth without checks. No bound is fitted to these clips: each camera's own checks decide.
Exit code 1: under 95 % of all kept drafts agree.
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
from edgecap.runtime.streams import Frame, StreamOptions, open_source
from edgecap.runtime.streams.describe import Describer, Job
from edgecap.runtime.streams.draft import AGREE, Draft, Trust, Verifier, draft_of
from edgecap.runtime.streams.gate import Decision
from edgecap.runtime.streams.options import stream_threads

STEPS = (1, 4)  # every so many frames is captioned
MOST = 1400  # captions of a clip


@click.command()
@click.argument("clips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(clips: Path, out: Path | None) -> None:
    """Caption clips with drafts and without, and compare."""
    captioner: Any = edgecap.load(threads=stream_threads())
    paths = sorted(clips.glob("*.mp4"))
    rows = {f"{path.name}, 1 in {step}": follow(path, captioner, step)
            for path in paths for step in STEPS}  # fmt: skip
    total = {
        name: sum(row[name] for row in rows.values())
        for name in ("frames", "kept", "kept_agree", "passed", "passed_agree", "refused")
    }
    agree = total["kept_agree"] / total["kept"] if total["kept"] else None
    record = {
        "command": command("benchmarks/stream_draft.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": captioner.name,
        "engine": captioner.engine_choice.engine,
        "threads": captioner.engine.threads,
        "clips": rows,
        "total": total,
        "agree_of_kept": None if agree is None else round(agree, 4),
        "agree_of_passed": round(total["passed_agree"] / max(1, total["passed"]), 4),
        "cost_ms": cost(paths[0], captioner, Verifier(captioner)),
    }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps(record, indent=1))
    if agree is not None and agree < AGREE:
        raise SystemExit(1)


def follow(path: Path, captioner: Any, step: int) -> dict[str, int]:
    """Counts of one clip of which one frame in ``step`` is captioned."""
    describer = Describer(captioner, {}, StreamOptions().near)
    describer.use_drafts()
    trust = Trust()
    draft: Draft | None = None
    last: Any = None
    counts = dict.fromkeys(("frames", "kept", "kept_agree", "passed", "passed_agree", "refused"), 0)

    def confirm(_: Frame, decision: Decision, features: Any) -> tuple[Decision, float | None]:
        nonlocal last
        cosine = None if last is None else float(features @ last)
        last = features
        return decision, cosine

    with open_source(path, realtime=False) as source:
        for frame in source:
            if frame.index % step or frame.index >= MOST * step:
                continue
            job = Job(frame, Decision(True, "always"), confirm, draft, trust)
            describer.describe([job])
            assert job.caption is not None
            counts["frames"] += 1
            counts["refused"] += job.verdict == "refused"
            if job.verdict in ("kept", "checked"):
                rgb = captioner.resize(frame.image)[None, ..., ::-1].copy()
                found = captioner.decode(captioner.engine.encode(rgb))[0]
                assert draft is not None
                same = found.tokens == draft.caption.tokens
                counts["passed"] += 1
                counts["passed_agree"] += same
                counts["kept"] += job.verdict == "kept"
                counts["kept_agree"] += same and job.verdict == "kept"
            if job.verdict != "kept":
                draft = job.next_draft
    return counts


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


if __name__ == "__main__":
    main()
