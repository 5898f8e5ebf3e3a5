"""Sections of docs/performance.md on quality against time, and on how time grows."""

from __future__ import annotations

from typing import Any

from performance_tables import both, table


def quality(records: dict[str, Any]) -> str:
    """The front, whether the default lies on it, and what could not be placed."""
    record = records["pareto"]
    points = record["points"]
    front = sorted((p for p in points if not p["dominated_by_ms"]), key=lambda p: p["ms"]["median"])
    shipped = default_of(record)
    shown = front if shipped in front else [*front, shipped]
    rows = [
        [
            f"**{name(p)}** (as shipped)" if p is shipped else name(p),
            f"{p['CIDEr']:.3f}",
            both(p["ms"]),
            f"{p['mb']:.1f}",
            "yes" if not p["dominated_by_ms"] else "no",
            "yes" if not p["dominated_by_mb"] else "no",
        ]
        for p in shown
    ]
    heads = ["model, engine, beams", "CIDEr", "ms", "MB", "on the front in ms", "in MB"]
    left_out = "; ".join(
        f"{each['model']} {each['CIDEr']['float32']:.3f} ({each['mb_int8']:.1f} MB in int8)"
        for each in record["without_weights"]
    )
    return (
        f"CIDEr on {record['pictures_scored']} test photographs of Flickr8k against the time from "
        f"pixels to caption on {record['photographs']} of them, {record['threads']} threads, all "
        f"{len(points)} points in turn (`pareto.json`); so few have no real 99th percentile, it is "
        "about the largest.\n\n"
        "![CIDEr against milliseconds and megabytes](images/pareto.svg)\n\n"
        + table(heads, rows)
        + "\n\n"
        + " ".join((verdict(shipped, points, "ms"), verdict(shipped, points, "mb")))
        + "\n\n"
        + validation(record)
        + "\n\nNot placed, since no weights were kept and so no time can be measured: "
        + left_out
        + " CIDEr on the same photographs in float32. ViT-GPT2, BLIP and other captioners from a "
        "hub were never trained here."
    )


def name(point: dict[str, Any]) -> str:
    """A point in words."""
    return f"{point['model']}, {point['engine']}, {point['beams']}"


def default_of(record: dict[str, Any]) -> dict[str, Any]:
    """The point that ships."""
    found: dict[str, Any] = next(
        p for p in record["points"] if all(p[k] == v for k, v in record["default"].items())
    )
    return found


def verdict(shipped: dict[str, Any], points: list[dict[str, Any]], axis: str) -> str:
    """Whether the default lies on a front, and by how much it does not."""
    unit = "milliseconds" if axis == "ms" else "megabytes"
    over = shipped[f"dominated_by_{axis}"]
    if not over:
        return f"The default lies on the front in {unit}."
    named = [p for p in points if f"{p['model']}, {p['engine']}, {p['beams']} beams" in over]
    told, sure = [], []
    for point in named:
        mean, low, high = point["better"]
        told.append(f"{name(point)} ({mean:+.3f} CIDEr, {low:+.3f} to {high:+.3f})")
        sure += [name(point)] if low > 0 else []
    beyond = f"better CIDEr beyond noise: {', '.join(sure)}" if sure else "none beyond noise"
    return (
        f"The default does **not** lie on the front in {unit}; it is dominated by "
        f"{'; '.join(told)}; {beyond} (95 % bootstraps over photographs)."
    )


def validation(record: dict[str, Any]) -> str:
    """The choice of beams on pictures that the test is not made of."""
    found, default = record["validation"], str(record["default"]["beams"])
    told = []
    for beams, score in found["CIDEr"].items():
        mean, low, high = found["better"][beams]
        beside = "" if beams == default else f" ({mean:+.3f}, {low:+.3f} to {high:+.3f})"
        told.append(f"{score:.3f} with {beams}{beside}")
    best = max(found["CIDEr"], key=lambda beams: found["CIDEr"][beams])
    told_why = (
        f"{best} beams are best there, and ship."
        if best == default
        else f"{best} beams are best there; {default} ship."
    )
    return (
        f"Beams are chosen on validation: on {found['pictures']} of its photographs the default "
        f"model reaches {', '.join(told)}. {told_why}"
    )


def growth(records: dict[str, Any]) -> str:
    """A plot and one sentence for each curve."""
    curves = records["scaling"]["curves"]
    told = [f"- {SENTENCES[key](curve)}" for key, curve in curves.items() if key in SENTENCES]
    return (
        "The default model with the engine that `auto` takes, 2 threads and 4 beams where nothing "
        "else is said (`scaling.json`). Points of a curve took turns, curves did not; few rounds "
        "stand behind each point, so that its 99th percentile is about its largest.\n\n"
        "![milliseconds against each of them](images/scaling.svg)\n\n" + "\n".join(told)
    )


def _ends(curve: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], float]:
    first, last = curve["points"][0], curve["points"][-1]
    return first, last, last["ms"]["median"] / first["ms"]["median"]


def _slope(curve: dict[str, Any]) -> float:
    """Milliseconds for each unit, from the first to the last point."""
    first, last, _ = _ends(curve)
    return float((last["ms"]["median"] - first["ms"]["median"]) / (last["at"] - first["at"]))


def _threads(curve: dict[str, Any]) -> str:
    first, last, ratio = _ends(curve)
    return (
        f"**Threads.** The second thread makes a caption {1 / ratio:.2f} times as fast: "
        f"{both(first['ms'])} to {both(last['ms'])} ms."
    )


def _beams(curve: dict[str, Any]) -> str:
    first, last, ratio = _ends(curve)
    return (
        f"**Beams.** {last['at']} beams take {ratio:.2f} times as long as one "
        f"({first['ms']['median']:.1f} to {last['ms']['median']:.1f} ms), about "
        f"{_slope(curve):.2f} ms for each beam: rows share the weights that a step reads."
    )


def _batch(curve: dict[str, Any]) -> str:
    points = curve["points"]
    best = max(points, key=lambda p: p["pictures_per_second"])
    one = points[0]["pictures_per_second"]
    return (
        f"**Batch.** One at a time, {one:.0f} pictures a second; the most are "
        f"{best['pictures_per_second']:.0f} with {best['at']} together, "
        f"{best['pictures_per_second'] / one:.2f} times as many."
    )


def _length(curve: dict[str, Any]) -> str:
    first, last, _ = _ends(curve)
    return (
        f"**Caption length.** A token more costs {_slope(curve):.2f} ms; {first['at']} tokens take "
        f"{first['ms']['median']:.1f} ms and {last['at']} take {last['ms']['median']:.1f}."
    )


def _size(curve: dict[str, Any]) -> str:
    first, last, ratio = _ends(curve)
    loads = [point["load_and_resize_ms"] for point in (first, last)]
    return (
        f"**Picture size.** A JPEG of {last['at']} x {last['at']} takes {ratio:.1f} times as long "
        f"as one of {first['at']} x {first['at']} ({first['ms']['median']:.1f} to "
        f"{last['ms']['median']:.1f} ms): decoding and resizing it grow from {loads[0]:.1f} to "
        f"{loads[1]:.1f} ms, and the model sees 224 x 224 whatever came."
    )


def _cameras(curve: dict[str, Any]) -> str:
    first, last, _ = _ends(curve)
    return (
        f"**Cameras.** One camera gets {first['captions_per_second']:.0f} captions a second, "
        f"{last['at']} get {last['captions_per_second']:.0f} together and none less than "
        f"{last['least_of_a_camera']:.1f}; capture to caption grows from "
        f"{first['ms']['median']:.0f} to {last['ms']['median']:.0f} ms."
    )


SENTENCES = {
    "threads": _threads,
    "beams": _beams,
    "batch": _batch,
    "length": _length,
    "size": _size,
    "cameras": _cameras,
}
