"""Sinks by address: ``sqlite:log.db``, ``mqtt://user@host``, ``film.vtt``, ``speech:``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.sinks.base import Sink

PASSWORD = "EDGECAP_MQTT_PASSWORD"


@dataclass(frozen=True)
class SinkContext:
    """What sinks may want to know of their stream.

    camera : the name that people see; model : the model's name
    patient : the source is not live, so that a sink may make it wait
    snapshots : whether pictures may leave the device
    speech : defaults of speech, as a profile gives them: interrupt, max_age, speed, voice
    """

    camera: str = "camera"
    model: str = ""
    patient: bool = False
    snapshots: bool = False
    speech: Mapping[str, Any] = field(default_factory=dict)


def open_sink(address: str, context: SinkContext | None = None) -> Sink:
    """Open a sink; what goes wrong goes wrong here.

    address : a file whose ending says what it is (.jsonl, .db, .sqlite, .vtt, .srt, .ass, .mp4,
        .mkv, .mov, .mcap), or one of ``json:FILE``, ``sqlite:FILE?keep=ROWS``, ``subtitles:FILE``,
        ``video:FILE``, ``rtsp-server:PORT[/NAME]``, ``window:``,
        ``mqtt[s]://[user[:password]@]host[:port][/root][?camera=&snapshots=&prefix=&ca=&buffer=]``,
        ``mcap:FILE[?topic=]``, ``dds://TOPIC[?domain=&reliability=&durability=&depth=&content=]``,
        ``speech:[?voice=&speed=&interrupt=&max_age=&folder=&piper=]``. A password is better given
        in EDGECAP_MQTT_PASSWORD than in an address that every user of the machine can list

    Raises SinkError with what was given and what is accepted.
    """
    context = SinkContext() if context is None else context
    scheme, _, rest = address.partition(":")
    if scheme not in KINDS:
        scheme, rest = ENDINGS.get(Path(address).suffix.lower(), ""), address
    if scheme not in KINDS or not address:
        kinds = ", ".join(f"{kind}:" for kind in KINDS)
        raise SinkError(
            f"{mask_password(address)!r} is no sink; give a file ending in {', '.join(ENDINGS)}, "
            f"or one of {kinds}"
        )
    return KINDS[scheme](address, rest, context)


def camera_name(source: str) -> str:
    """A name for people out of a source's address: ``porch`` of ``rtsp://***@host/porch``."""
    parts = [part for part in re.split(r"[/?#:@*]+", source) if part]
    name = parts[-1].rpartition(".")[0] or parts[-1] if parts else ""
    return name if any(letter.isascii() and letter.isalnum() for letter in name) else "camera"


def mask_password(address: str) -> str:
    """The address without what stands between ``//`` and ``@``."""
    head, at, tail = address.rpartition("@")
    return f"{head.partition('//')[0]}//***@{tail}" if at and "//" in head else address


def _json(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.streams.sinks.json_lines import JsonLinesFile

    return JsonLinesFile(_path(address, rest))


def _sqlite(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.streams.sinks.sqlite_log import SqliteLog

    path, options = _options(address, rest, {"keep": int})
    return SqliteLog(_path(address, path), **options)


def _subtitles(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.streams.sinks.subtitles import Subtitles

    return Subtitles(_path(address, rest))


def _video(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.streams.sinks.annotated_video import AnnotatedVideo

    return AnnotatedVideo(_path(address, rest), patient=context.patient)


def _mcap(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.messages.captions import check_topic
    from edgecap.runtime.streams.sinks.mcap import CaptionBag, McapSink

    path, options = _options(address, rest, {"topic": str})
    check_topic(options.get("topic", "/edgecap"))
    bag = CaptionBag(_path(address, path.removeprefix("//")))
    return McapSink(bag, model=context.model, **options)


def _dds(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.streams.sinks.dds import Dds, DdsOptions

    kinds: dict[str, Callable[[str], Any]] = {
        "domain": int, "reliability": str, "durability": str, "depth": int, "content": str,
    }  # fmt: skip
    topic, options = _options(address, rest, kinds)
    if topic.strip("/"):
        options["topic"] = topic
    return Dds(DdsOptions(**options))


def _window(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.streams.sinks.window import Window

    return Window(f"EdgeCap: {context.camera}")


def _rtsp(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.streams.sinks.rtsp_server import RtspServer

    port, _, path = rest.strip("/").partition("/")
    if port and not port.isdecimal():
        raise SinkError(
            f"{address!r}: {port!r} is no port; give rtsp-server:8554/{path or 'porch'}"
        )
    return RtspServer(int(port or 8554), path or "edgecap")


def _speech(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.streams.sinks.speech import Speech
    from edgecap.runtime.streams.sinks.voices import EspeakNg

    kinds: dict[str, Callable[[str], Any]] = {
        "voice": str, "speed": int, "interrupt": str, "max_age": float, "folder": str,
        "piper": Path,
    }  # fmt: skip
    _, given = _options(address, rest, kinds)
    options = {**context.speech, **given}
    piper = options.pop("piper", None)
    espeak = {name: options.pop(name) for name in ("voice", "speed") if name in options}
    if piper is None:
        return Speech(EspeakNg(**espeak), **options)
    from edgecap.runtime.streams.sinks.piper import Piper

    voice = Piper(piper)
    sink = Speech(voice, **options)
    if "folder" not in options:
        voice.prepare()
    return sink


def _mqtt(address: str, rest: str, context: SinkContext) -> Sink:
    from edgecap.runtime.streams.sinks.mqtt import Mqtt, MqttOptions

    plain, options = _options(
        address, rest, {"camera": str, "prefix": str, "ca": str, "snapshots": _yes, "buffer": int}
    )
    try:
        parts = urlsplit(f"mqtt:{plain}")
        port = parts.port
    except ValueError as error:
        raise SinkError(f"{mask_password(address)!r}: {error}; give mqtt://host:1883") from None
    tls = address.startswith("mqtts:")
    if parts.path.strip("/"):
        options["root"] = parts.path.strip("/")
    if port is not None:
        options["port"] = port
    elif tls:
        options["port"] = 8883
    password = None if parts.password is None else unquote(parts.password)
    values: dict[str, Any] = {
        "camera": context.camera,
        "snapshots": context.snapshots,
        **options,
    }
    return Mqtt(
        MqttOptions(
            host=parts.hostname or "",
            user=None if parts.username is None else unquote(parts.username),
            password=password or os.environ.get(PASSWORD),
            tls=tls,
            **values,
        ),
        model=context.model,
    )


def _options(
    address: str, rest: str, kinds: Mapping[str, Callable[[str], Any]]
) -> tuple[str, dict[str, Any]]:
    """What stands before ``?``, and the options behind it, each of its kind."""
    plain, _, query = rest.partition("?")
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in kinds:
            raise SinkError(
                f"{mask_password(address)!r}: {name!r} is no option; give one of {', '.join(kinds)}"
            )
        try:
            options[name] = kinds[name](value)
        except ValueError:
            raise SinkError(
                f"{mask_password(address)!r}: {name} is {value!r}, which is none"
            ) from None
    return plain, options


def _yes(value: str) -> bool:
    if value.lower() not in ("1", "0", "yes", "no", "true", "false"):
        raise ValueError(value)
    return value.lower() in ("1", "yes", "true")


def _path(address: str, rest: str) -> str:
    if not rest:
        raise SinkError(f"{address!r} names no file; give one, such as {address}captions")
    return rest


KINDS: dict[str, Callable[[str, str, SinkContext], Sink]] = {
    "json": _json,
    "sqlite": _sqlite,
    "subtitles": _subtitles,
    "video": _video,
    "mqtt": _mqtt,
    "mqtts": _mqtt,
    "speech": _speech,
    "rtsp-server": _rtsp,
    "window": _window,
    "mcap": _mcap,
    "dds": _dds,
}
ENDINGS = {
    ".jsonl": "json",
    ".db": "sqlite",
    ".sqlite": "sqlite",
    ".vtt": "subtitles",
    ".srt": "subtitles",
    ".ass": "subtitles",
    ".mp4": "video",
    ".mkv": "video",
    ".mov": "video",
    ".mcap": "mcap",
}
