"""Sections of docs/performance.md that are tables: floors, peers, steps, streams, devices."""

from __future__ import annotations

import textwrap
from typing import Any

OURS = "edgecap"
BASE = "transformers"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def both(spread: dict[str, float], digits: int = 1) -> str:
    """Median and 99th percentile."""
    return f"{spread['median']:.{digits}f} ({spread['p99']:.{digits}f})"


def floors(records: dict[str, Any]) -> str:
    """What the machine allows and what is reached."""
    record = records["floors"]
    rows, rates = [], []
    for run in record["runs"]:
        many = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
        found = run["rates"]
        rates.append(
            f"{many}: {found['triad'] / 1e9:.0f} GB/s in STREAM's triad, {found['read'] / 1e9:.0f} "
            f"GB/s reading memory, {found['fp32'] / 1e9:.0f} billion operations a second in "
            f"float32 and {found['int8'] / 1e9:.0f} in int8"
        )
        for row in run["floors"]:
            rows.append(
                [
                    many,
                    row["what"],
                    f"{row['megabytes']:.1f} MB at {row['gb_s']:.0f} GB/s",
                    f"{row['integer_mops']:.0f} + {row['float_mops']:.0f} M",
                    f"{row['floor_ms']:.3f} ({row['bound']})",
                    f"{row['ms']:.3f}",
                    f"{row['reached']:.0%}",
                ]
            )
    heads = ["", "", "reads", "operations, int8 + float", "floor", "measured", "reached"]
    return (
        f"The default model, {record['beams']} beams, one run (`floors.json`). "
        + "; ".join(rates)
        + ".\n\n"
        + table(heads, rows)
        + "\n\nA floor is the larger of bytes over bandwidth and operations over peak, "
        "counted from the graphs. Weights that fit into the cache have the cache's bandwidth. "
        "Neither softmax, norms nor the work between two products is in a floor."
    )


def peers(records: dict[str, Any]) -> str:
    """Every record of peers, and who is ahead."""
    parts = []
    for name, record in records.items():
        if name.startswith("peers_"):
            parts.append(_peers(name, record))
    return "\n\n".join(parts)


def _peers(file: str, record: dict[str, Any]) -> str:
    widths = sorted(
        (int(key.partition("_")[2]) for key in record if key.startswith("beams_")), reverse=True
    )
    names = list(dict.fromkeys(name for width in widths for name in record[f"beams_{width}"]))
    rows = []
    for name in names:
        row = [f"**{name}**" if _own(name) else name]
        for width in widths:
            found = record[f"beams_{width}"].get(name, {})
            row.append(both(found["ms"]) if "ms" in found else _why(found))
        first = record[f"beams_{widths[0]}"].get(name, {})
        row.append(f"{first['step_ms']:.2f}" if "step_ms" in first else "")
        row.append(first.get("same_captions", ""))
        row.append(f"{first['first_call_ms'] / 1e3:.1f} s" if "first_call_ms" in first else "")
        row.append(f"{first['peak_rss_mb'] / 1e3:.2f} GB" if "peak_rss_mb" in first else "")
        rows.append(row)
    heads = ["", *(f"{width} beams" if width > 1 else "greedy" for width in widths)]
    heads += ["a step", "same captions", "first call", "peak RSS"]
    text = f"**{record['model']}** ({record['weights']}), {record['tokens']} tokens, "
    text += f"{record['threads']} threads; {record['measured']} (`{file}.json`). Captions are "
    text += f"compared with those of {record.get('reference', BASE)}"
    text += f"; 99th percentile {record['p99']}" if "p99" in record else ""
    text += ".\n\n" + table(heads, rows) + "\n\n"
    return text + " ".join(ahead(record[f"beams_{width}"], width) for width in widths)


def _own(name: str) -> bool:
    return name.lower().startswith(OURS)


def _why(found: dict[str, Any]) -> str:
    """Why a peer has no time, in a few words."""
    text = str(found.get("could_not", "not asked")).replace("|", "/")
    return "could not: " + textwrap.shorten(text, 90, placeholder=" ...")


def ahead(found: dict[str, Any], width: int) -> str:
    """Who is the fastest with a beam width. found : peer -> its figures"""
    timed = {name: row["ms"]["median"] for name, row in found.items() if "ms" in row}
    ours = {name: ms for name, ms in timed.items() if _own(name)}
    others = {name: ms for name, ms in timed.items() if not _own(name)}
    many = f"With {width} beams" if width > 1 else "Greedily"
    if not ours or not others:
        return ""
    best, rival = min(ours, key=ours.__getitem__), min(others, key=others.__getitem__)
    ratio = others[rival] / ours[best]
    if ratio >= 1:
        return f"{many} `{best}` is {ratio:.2f} times as fast as the best peer, `{rival}`."
    ahead = ", ".join(f"`{name}`" for name, ms in others.items() if ms < ours[best])
    return (
        f"{many} these stay ahead of `{best}`: {ahead}; `{rival}` is {1 / ratio:.2f} times as "
        "fast. The reason is in [results.md](../benchmarks/results.md)."
    )


def steps(records: dict[str, Any]) -> str:
    """Own kernels against ONNX Runtime."""
    record = records["step_engine"]
    rows = [
        [
            str(run["threads"]),
            str(run["beams"]),
            both(run["onnxruntime"]["step_ms"], 2),
            both(run["int8"]["step_ms"], 2),
            f"{run['int8']['step_ratio']:.1f}",
            both(run["onnxruntime"]["caption_ms"]),
            both(run["int8"]["caption_ms"]),
        ]
        for run in record["runs"]
    ]
    heads = ["threads", "beams", "step, ONNX Runtime", "step, own kernels in int8"]
    heads += ["times faster", "caption, ONNX Runtime", "caption, own kernels"]
    return "The default model's decoder (`step_engine.json`, [how](cpu_engine.md)).\n\n" + table(
        heads, rows
    )


def streams(records: dict[str, Any]) -> str:
    """Rates and latencies of clips."""
    record = records["stream_rate"]
    rows = [
        [
            name.removesuffix(".mp4"),
            f"{clip['captions_per_second']:.1f}",
            both(clip["capture_to_caption_ms"]),
            f"{clip['p99_over_median']:.2f}",
        ]
        for name, clip in record["clips"].items()
    ]
    four = record["four_cameras"]
    rows.append(
        [
            "four cameras on one model",
            f"{four['captions_per_second']:.1f}",
            both(four["capture_to_caption_ms"]),
            f"{four['p99_over_median']:.2f}",
        ]
    )
    heads = ["clip", "captions/s", "capture to caption", "p99 / median"]
    text = f"Every frame captioned at {record['fps']:g} frames a second, {record['beams']} beams "
    text += "(`stream_rate.json`).\n\n" + table(heads, rows)
    if "first_word" in records:
        word = records["first_word"]["capture_to_first_sound_ms"]
        text += f"\n\nCapture to the first sound of a spoken sentence: {both(word, 0)} ms "
        text += "(`first_word.json`)."
    return text


def cold_start(records: dict[str, Any]) -> str:
    """A whole process."""
    record = records["cold_start"]
    caption = record["caption_photo"]
    return (
        f"`edgecap caption photo.jpg` as a whole new process: {caption['wall_s']['median']:.2f} s, "
        f"{caption['peak_rss_mb']['median']:.0f} MB at most; `import edgecap` alone "
        f"{record['import_edgecap']['wall_s']['median']:.3f} s (`cold_start.json`)."
    )


def projection(records: dict[str, Any]) -> str:
    """What ``edgecap bench project`` says of the default model, and how far it was off here."""
    from edgecap.bench.devices import DEVICES
    from edgecap.bench.project import calibration, project
    from edgecap.models import resolve
    from edgecap.runtime.bundle import read_bundle

    record = records["projection_check"]
    names = ("encoder", "step", "host_ms", "checks", "error", "worst", "date")
    machine = f"{record['machine']['cpu']}, {record['machine']['cores']} cores"
    known = calibration({"machine": machine} | {name: record[name] for name in names})
    bundle = read_bundle(resolve("default"))
    found = [project(bundle, device, tokens=12, calibration=known) for device in DEVICES]
    rows = [
        [
            each.device.name,
            *(f"{s.floor_ms:.2f} / **{s.projected_ms:.1f}**" for s in each.stages[1:]),
            f"{each.stages[0].projected_ms:.1f}",
            f"**{each.projected_ms:.0f}**",
        ]
        for each in found
    ]
    heads = ["", "encoder, floor / projected", "decoder, floor / projected", "host", "a caption"]
    checks = [
        [
            case["model"],
            str(case["threads"]),
            str(case["beams"]),
            f"{case['caption_ms']:.1f}",
            f"{case['predicted_caption_ms']:.1f}",
            f"{case['error']:+.0%}",
        ]
        for case in record["cases"]
    ]
    bases = [case["model"] for case in record["cases"] if case["calibrates"]]
    return (
        "**Projections, not measurements**: `edgecap bench project default --device NAME`, 4 "
        "beams, 12 tokens, fp16 on GPUs, ms.\n\n"
        + table(heads, rows)
        + f"\n\nError: {known.error:.0%} in the median and {known.worst:.0%} at worst of "
        f"{known.checks} predictions on this CPU. No GPU and no Raspberry Pi was measured: the GPU "
        "part of the method is unchecked, and its share of the roofline, time of a launch and the "
        "speed of each host are assumptions of `edgecap/bench/devices.py`.\n\n"
        "The check (`projection_check.json`): shares of bandwidth and peak from "
        f"{' and '.join(bases)} "
        "with 1 thread and 4 beams, all else predicted.\n\n"
        + table(["model", "threads", "beams", "measured", "predicted", "error"], checks)
    )
