"""Sources: where frames come from. ``open_source`` finds the kind by the address."""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Source, mask_credentials

__all__ = ["KINDS", "Source", "mask_credentials", "open_source"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_ACCEPTED = "a video, a picture, a folder of pictures, /dev/video0, csi://0 or rtsp://..."
_PATTERN = re.compile(r"[*?\[]")
_DEVICE = re.compile(r"/dev/video\d+")


def open_source(
    uri: str | PathLike[str] | int,
    *,
    loop: bool = False,
    realtime: bool = True,
    open_timeout: float = 10.0,
    read_timeout: float = 5.0,
    reconnects: int = 10,
    wait: bool = False,
    transport: str = "auto",
    latency: float = 0.5,
    decoder: str = "auto",
    width: int | None = None,
    height: int | None = None,
    rate: float | None = None,
    frozen_after: float = 30.0,
) -> Source:
    """Open a source of frames; what goes wrong goes wrong here, not at the first read.

    Parameters
    ----------
    uri : a path, pattern (``*.jpg``) or ``file://`` (video, picture, pictures, folder of
        pictures), ``/dev/video0``, ``v4l2:///dev/video0`` or ``0``, ``csi://0``,
        ``rtsp://[user:password@]host[:port]/path``, ``http(s)://...``, ``gst://PIPELINE``,
        ``ros2://TOPIC``, a bag of ROS 2 (``bag.mcap``, ``mcap://BAG?topic=TOPIC``), or
        ``test://moving|static|flashing``
    loop : begin again at the end of a file or folder
    realtime : play a video file at its own speed, the newest frame winning; False gives every
        frame. Pictures always wait to be asked for unless they have a rate, cameras never do
    others : as in ``SourceOptions``

    Raises SourceError (no such thing, cannot be read) and OptionsError.
    """
    options = SourceOptions(
        loop=loop,
        realtime=realtime,
        open_timeout=open_timeout,
        read_timeout=read_timeout,
        reconnects=reconnects,
        wait=wait,
        transport=transport,
        latency=latency,
        decoder=decoder,
        width=width,
        height=height,
        rate=rate,
        frozen_after=frozen_after,
    )
    address = str(uri) if isinstance(uri, int) else fspath(uri)
    if address.isascii() and address.isdigit():
        address = f"/dev/video{address}"
    if _DEVICE.fullmatch(address):
        return _v4l2(address, address, options)
    if address in ("", "file://"):
        raise SourceError(f"no source is named; give {_ACCEPTED}")
    found = _SCHEME.fullmatch(address)
    if found is None:
        return _path(Path(address), options)
    scheme, rest = found.group(1).lower(), found.group(2)
    if scheme not in KINDS:
        kinds = ", ".join(f"{kind}://" for kind in KINDS)
        raise SourceError(
            f"{mask_credentials(address)} is of an unknown kind; give a path, /dev/video0 or "
            f"one of {kinds}"
        )
    return KINDS[scheme](address, rest, options)


def _file(uri: str, rest: str, options: SourceOptions) -> Source:
    # As written first: a name may hold a real per cent sign.
    plain = Path(rest)
    return _path(plain if plain.exists() else Path(unquote(rest)), options)


def _path(path: Path, options: SourceOptions) -> Source:
    from edgecap.runtime.messages.bags import is_bag
    from edgecap.runtime.streams.sources.image_folder import ImageFolder, is_picture

    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        if _PATTERN.search(str(path)):
            return _glob(path, options)
        raise SourceError(
            f"{mask_credentials(str(path))!r} does not exist or cannot be reached; give {_ACCEPTED}"
        ) from error
    if is_bag(path):
        return _bag(path, options)
    if path.is_dir() or (is_picture(path) and path.is_file()):
        return ImageFolder(path, options)
    if not path.is_file():
        raise SourceError(f"{path} is neither a file nor a folder; give a video or pictures")
    if size == 0:
        raise SourceError(f"{path} is empty; give a video, a picture or a folder of pictures")
    from edgecap.runtime.streams.sources.video_file import VideoFile

    return VideoFile(path, options)


def _glob(pattern: Path, options: SourceOptions) -> Source:
    import glob

    from edgecap.runtime.streams.sources.image_folder import ImageFolder, is_picture

    paths = sorted(Path(name) for name in glob.glob(str(pattern), recursive=True))
    files = [path for path in paths if path.is_file()]
    pictures = [path for path in files if is_picture(path)]
    if pictures:
        return ImageFolder(pattern, options, pictures)
    if len(files) == 1:
        return _path(files[0], options)
    found = f"{len(files)} files, none of them a picture" if files else "no file"
    raise SourceError(f"{pattern} matches {found}; give a pattern of pictures or of one video")


def _v4l2(uri: str, rest: str, options: SourceOptions) -> Source:
    from edgecap.runtime.streams.sources.v4l2 import V4L2Camera

    return V4L2Camera(f"/dev/video{rest}" if rest.isdigit() else rest, options)


def _rtsp(uri: str, rest: str, options: SourceOptions) -> Source:
    from edgecap.runtime.streams.sources.rtsp import RtspCamera

    return RtspCamera(uri, options)


def _csi(uri: str, rest: str, options: SourceOptions) -> Source:
    from edgecap.runtime.streams.sources.csi import CsiCamera

    return CsiCamera(rest, options)


def _http(uri: str, rest: str, options: SourceOptions) -> Source:
    from edgecap.runtime.streams.sources.http import HttpCamera

    return HttpCamera(uri, options)


def _gst(uri: str, rest: str, options: SourceOptions) -> Source:
    from edgecap.runtime.streams.sources.gstreamer import GstSource

    return GstSource(rest, options)


def _ros2(uri: str, rest: str, options: SourceOptions) -> Source:
    from edgecap.runtime.streams.sources.ros2 import Ros2Camera

    return Ros2Camera(rest, options)


def _bag(path: Path, options: SourceOptions, topic: str | None = None) -> Source:
    from edgecap.runtime.streams.sources.mcap import McapBag

    return McapBag(path, options, topic)


def _mcap(uri: str, rest: str, options: SourceOptions) -> Source:
    name, _, query = rest.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    topic = given.pop("topic", None)
    if given or not name:
        raise SourceError(
            f"{uri} is no address of a bag; give mcap://BAG or mcap://BAG?topic=TOPIC"
        )
    if not Path(name).exists():
        raise SourceError(f"{name!r} does not exist or cannot be reached; give a bag of ROS 2")
    return _bag(Path(name), options, topic)


def _test(uri: str, rest: str, options: SourceOptions) -> Source:
    from edgecap.runtime.streams.sources.generated import GeneratedSource

    return GeneratedSource(uri, options)


KINDS: dict[str, Callable[[str, str, SourceOptions], Source]] = {
    "file": _file,
    "v4l2": _v4l2,
    "csi": _csi,
    "rtsp": _rtsp,
    "rtsps": _rtsp,
    "http": _http,
    "https": _http,
    "gst": _gst,
    "ros2": _ros2,
    "mcap": _mcap,
    "test": _test,
}
