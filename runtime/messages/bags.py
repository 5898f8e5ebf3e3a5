"""Bags of ROS 2: MCAP files, and the folders that ``ros2 bag record`` makes of them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edgecap.runtime.errors import MissingExtraError, SourceError

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
MAGIC = b"\x89MCAP0\r\n"
METADATA, ABOUT = "metadata.yaml", "rosbag2_bagfile_information"
MAX_CHUNK = 1 << 30  # bytes of a chunk, unpacked


class Recorded(NamedTuple):
    """One message of a bag.

    logged : nanoseconds since 1970 at which the recorder took it
    message : with the fields of its type; None where its bytes are none of that type
    """

    logged: int
    message: Any


class Bag:
    """A bag that can be read from its beginning to its end, or to where it breaks off.

    topics : topic -> type, of all that the bag holds
    cut : where the bag breaks off, in one line, once that was found; else None
    damaged : parts (chunks) that were left out because their checksum or packing is wrong

    Raises SourceError for what is no bag, MissingExtraError where the packages that read one are
    not installed.
    """

    def __init__(self, path: Path) -> None:
        need_mcap(path)
        self.path = path
        self.cut: str | None = None
        self.damaged = 0
        self._files = bag_files(path)
        self.topics: dict[str, str] = {}
        for file in self._files:
            _check_magic(file)
            self.topics.update(self._find_topics(file))
        self.cut, self.damaged = None, 0  # told by the reading, not by this look

    @property
    def image_topics(self) -> list[str]:
        """Topics that carry images, in the order of their names."""
        return sorted(topic for topic, kind in self.topics.items() if kind in (IMAGE, COMPRESSED))

    def choose(self, topic: str | None) -> str:
        """The topic itself if it carries images; None: the only one that does."""
        found = self.image_topics
        if topic is None:
            if len(found) == 1:
                return found[0]
            if not found:
                kinds = sorted(set(self.topics.values()))
                held = f"it holds {', '.join(kinds)}" if kinds else "it holds no topic at all"
                raise SourceError(f"{self.path} has no topic of {IMAGE} or CompressedImage; {held}")
            raise SourceError(
                f"{self.path} has {len(found)} topics with images: {', '.join(found)}; name one: "
                f"mcap://{self.path}?topic={found[0]} (`edgecap bag` captions all)"
            )
        name = "/" + topic.lstrip("/")
        if name in found:
            return name
        choice = f"topics with images: {', '.join(found)}" if found else "it has none with images"
        if name in self.topics:
            raise SourceError(f"{name} of {self.path} carries {self.topics[name]}; {choice}")
        raise SourceError(f"{self.path} has no topic {name}; {choice}")

    def messages(self, topic: str) -> Iterator[Recorded]:
        """The messages of a topic in the order of the file, decoded."""
        from mcap.records import Channel, Message, Schema
        from mcap_ros2.decoder import DecoderFactory

        count = 0
        for file in self._files:
            factory = DecoderFactory()
            schemas: dict[int, Schema] = {}
            wanted: dict[int, Any] = {}  # channel -> decoder, of the topic's channels
            for record in self._records(file):
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel) and record.topic == topic:
                    wanted[record.id] = self._decoder(factory, record, schemas)
                elif isinstance(record, Message) and record.channel_id in wanted:
                    count += 1
                    yield Recorded(record.log_time, _decode(wanted[record.channel_id], record.data))
            if self.cut is not None:
                self.cut = f"{self.cut}; {count} messages of {topic} stand before that"
                return

    def _decoder(self, factory: Any, channel: Any, schemas: dict[int, Any]) -> Any:
        schema = schemas.get(channel.schema_id)
        try:
            decoder = factory.decoder_for(channel.message_encoding, schema)
        except Exception as error:  # its parser raises many kinds
            raise SourceError(
                f"{self.path}: the definition of {channel.topic} cannot be read ({error}); "
                "record it again with its message package installed"
            ) from None
        if decoder is None:
            kind = schema.encoding if schema is not None else "none"
            raise SourceError(
                f"{self.path}: {channel.topic} is in {channel.message_encoding!r} with a "
                f"{kind!r} definition; messages of ROS 2 are in 'cdr' with 'ros2msg'"
            )
        return decoder

    def _find_topics(self, file: Path) -> dict[str, str]:
        """From the summary at the file's end; where that is cut off, from all that can be read."""
        from mcap.records import Channel, Schema

        found = _summary(file)
        if found is None:
            schemas: dict[int, Any] = {}
            channels: dict[int, Any] = {}
            for record in self._records(file):
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    channels[record.id] = record
            found = schemas, channels
        schemas, channels = found
        return {
            channel.topic: schemas[channel.schema_id].name
            for channel in channels.values()
            if channel.schema_id in schemas
        }

    def _records(self, file: Path) -> Iterator[Any]:
        """Every record up to the end or the cut, those within chunks one by one."""
        from mcap.exceptions import McapError, UnsupportedCompressionError
        from mcap.records import Chunk
        from mcap.stream_reader import StreamReader, breakup_chunk

        size = file.stat().st_size
        with file.open("rb") as stream:
            # No record is longer than its file: a length beyond that means that it is cut or wrong.
            reader = StreamReader(stream, emit_chunks=True, record_size_limit=size)
            records = reader.records
            while True:
                place = stream.tell()
                try:
                    record = next(records, None)
                except (McapError, struct.error, UnicodeDecodeError, OverflowError):
                    self.cut = f"{file} breaks off at byte {place} of {size}"
                    return
                if record is None:
                    return
                if not isinstance(record, Chunk):
                    yield record
                    continue
                try:
                    inner = breakup_chunk(_bounded(record), validate_crc=True)
                except UnsupportedCompressionError:
                    raise SourceError(
                        f"{file} is packed with {record.compression!r}; zstd and lz4 can be read"
                    ) from None
                except Exception:  # each packer raises kinds of its own
                    self.damaged += 1
                    continue
                yield from inner


def need_mcap(path: Path) -> None:
    """Raises MissingExtraError where the packages that read and write bags are not installed."""
    try:
        import mcap.reader  # noqa: F401
        import mcap_ros2.decoder  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            f"{path} is a bag, which needs the packages mcap and mcap-ros2-support: "
            "pip install 'edgecap[ros]'"
        ) from None


def is_bag(path: Path) -> bool:
    """Whether a file's ending, or what is in a folder, says that it is a bag of ROS 2."""
    if path.is_dir():
        try:
            held = (path / METADATA).read_bytes()[:4096]
        except OSError:
            held = b""
        return ABOUT.encode() in held or any(path.glob("*.mcap"))
    return path.suffix.lower() in (".mcap", ".db3")


def bag_files(path: Path) -> list[Path]:
    """The MCAP files of a bag in their order.

    A recorder that was killed leaves no metadata: then all the folder's files, by their numbers.
    """
    if not path.is_dir():
        if path.suffix.lower() == ".db3":
            raise SourceError(_in_sqlite(path.parent))
        return [path]
    if not (path / METADATA).exists() and any(path.glob("*.mcap")):
        return sorted(path.glob("*.mcap"), key=_number)
    import yaml

    try:
        held = yaml.safe_load((path / METADATA).read_text(encoding="utf-8"))
        about = held[ABOUT]
        storage, names = str(about["storage_identifier"]), list(about["relative_file_paths"])
        packed = str(about.get("compression_mode") or "").lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise SourceError(
            f"{path / METADATA} is not that of a bag ({type(error).__name__}); give the .mcap file "
            "itself, or run `ros2 bag reindex`"
        ) from None
    if storage == "sqlite3":
        raise SourceError(_in_sqlite(path))
    if storage != "mcap" or packed not in ("", "none"):
        how = f"{storage} packed by {packed}" if storage == "mcap" else storage
        raise SourceError(f"{path} is a bag in {how}; `ros2 bag convert` makes plain MCAP of it")
    files = [path / Path(str(name)).name for name in names]  # older ones hold the folder's name
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        lacks = ", ".join(missing) if missing else "any file"
        raise SourceError(f"the bag {path} lacks {lacks}; copy it again")
    return files


def _number(file: Path) -> tuple[int, str]:
    """Of ``drive_10.mcap`` 10, which is after 9."""
    last = file.stem.rpartition("_")[2]
    return int(last) if last.isascii() and last.isdecimal() else -1, file.name


def _in_sqlite(bag: Path) -> str:
    return (
        f"{bag} is a bag in SQLite (.db3); make MCAP of it: pip install rosbags, then "
        f"rosbags-convert --src {bag} --dst {bag}_mcap --dst-storage mcap"
    )


def _check_magic(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            start = stream.read(len(MAGIC))
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from None
    if start != MAGIC:
        held = "is empty" if not start else "is no MCAP file"
        raise SourceError(f"{file} {held}; give a bag that `ros2 bag record -s mcap` made")


def _summary(file: Path) -> tuple[dict[int, Any], dict[int, Any]] | None:
    from mcap.reader import SeekingReader

    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(-len(MAGIC), os.SEEK_END)
        if stream.read() != MAGIC:
            return None
        stream.seek(0)
        try:
            summary = SeekingReader(stream, record_size_limit=size).get_summary()
        except Exception:  # a damaged end is like none: the file is read from its beginning
            return None
    # A summary may leave out schemas and channels.
    if summary is None or not summary.channels:
        return None
    if any(channel.schema_id not in summary.schemas for channel in summary.channels.values()):
        return None
    return dict(summary.schemas), dict(summary.channels)


def _bounded(chunk: Any) -> Any:
    """The chunk, if it says itself that it stays small when it is unpacked."""
    size = chunk.uncompressed_size
    if chunk.compression == "zstd":
        import zstandard

        size = max(size, zstandard.frame_content_size(chunk.data))
    if size > MAX_CHUNK:
        raise ValueError(size)
    return chunk


def _decode(decoder: Any, data: bytes) -> Any:
    try:
        return decoder(data)
    except Exception:  # whatever the bytes are, only this message is lost
        return None
