"""WebDataset shards, streamed: tar files of key.jpg (or .png) with key.txt or key.json.

For sets that do not fit one disk: a rank reads only its own shards, front to back, and nothing is
unpacked. The order is a function of seed, epoch, rank and worker, and a run goes on in the middle
of a shard where its ``ShardPosition`` says.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from edgecap.runtime.errors import DataError
from edgecap.training.data.base import CaptionedImage
from edgecap.training.data.files import is_inside

PICTURES = ("jpg", "jpeg", "png", "webp")
KINDS = (*PICTURES, "txt", "json")
MAX_MEMBER_BYTES = 1 << 28
_BLOCK = tarfile.BLOCKSIZE


class _Json(msgspec.Struct):
    caption: str | list[str] | None = None
    captions: list[str] | None = None


@dataclass
class Sample:
    """Consecutive members of one key. ``picture`` is name, offset, size and maybe the bytes."""

    key: str
    picture: tuple[str, int, int, bytes | None] | None = None
    text: list[str] = field(default_factory=list)
    json: list[str] = field(default_factory=list)

    def image(self, shard: str) -> CaptionedImage:
        """As an image without captions where it has none; the captions of .json go first."""
        name, offset, size, data = self.picture or (self.key, 0, 0, None)
        captions = tuple(text for text in self.json or self.text if text.strip())
        return CaptionedImage(name, Path(shard), captions, span=(offset, size), data=data)


@dataclass(frozen=True)
class ShardPosition:
    """Where a stream stands: ``taken`` samples were given of the block that began there.

    epoch : how many passes are done
    shard, sample : the place in this worker's list of shards where the current block begins
    block : number of the block in the epoch
    """

    epoch: int = 0
    shard: int = 0
    sample: int = 0
    block: int = 0
    taken: int = 0

    def __post_init__(self) -> None:
        if min(self.epoch, self.shard, self.sample, self.block, self.taken) < 0:
            raise DataError(f"{self} has a negative part; give one that a stream reported")


@dataclass(frozen=True)
class ShardOptions:
    """Which shards, in what order, for whom.

    shards : paths, or addresses such as s3://bucket/a.tar, which fsspec opens
    buffer : samples that are read and shuffled as one block; 1 keeps the order of the shard
    shuffle : False keeps the order of ``shards`` too
    rank, world : this process of how many; worker, workers : this data worker of how many
    """

    shards: tuple[str, ...]
    seed: int = 0
    buffer: int = 1000
    shuffle: bool = True
    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world or not 0 <= self.worker < self.workers:
            raise DataError(
                f"rank {self.rank} of {self.world} and worker {self.worker} of {self.workers}: "
                "both count from 0 to below their number"
            )
        if self.buffer < 1 or self.seed < 0:
            raise DataError(f"buffer is {self.buffer}, seed {self.seed}; give at least 1 and 0")
        if len(self.shards) < self.world * self.workers:
            raise DataError(
                f"{len(self.shards)} shards are too few for {self.world} ranks with "
                f"{self.workers} workers each; a shard is read by one of them"
            )


class ShardStream:
    """Iterating gives the rest of the current epoch; ``position`` is what to keep to go on.

    Samples are ``CaptionedImage`` with ``data``; those without a picture or captions are left out
    and counted in ``skipped``. Ranks may differ in how many samples they have: where processes
    step together, count steps, not epochs. Raises DataError on damaged or unsafe shards.
    """

    def __init__(self, options: ShardOptions, position: ShardPosition | None = None) -> None:
        self.options = options
        self.position = position or ShardPosition()
        self.skipped = 0

    def __iter__(self) -> Iterator[CaptionedImage]:
        options, start = self.options, self.position
        shards = self.shards(start.epoch)
        shard, sample, number, taken = start.shard, start.sample, start.block, start.taken
        reader = self._read(shards, shard, sample)
        while True:
            block: list[CaptionedImage] = []
            following = (shard, sample)
            for image, after in reader:
                block.append(image)
                following = after
                if len(block) == options.buffer:
                    break
            if not block:
                break
            order = np.arange(len(block))
            if options.shuffle:
                order = self._random(start.epoch, number + 1).permutation(len(block))
            for index in order[taken:]:
                taken += 1
                self.position = ShardPosition(start.epoch, shard, sample, number, taken)
                yield block[index]
            (shard, sample), number, taken = following, number + 1, 0
        self.position = ShardPosition(start.epoch + 1)

    def shards(self, epoch: int) -> list[str]:
        """This worker's shards of an epoch in their order. Ranks and workers share none."""
        options = self.options
        order = np.arange(len(options.shards))
        if options.shuffle:
            order = np.random.default_rng([options.seed, epoch]).permutation(len(order))
        mine = order[options.rank :: options.world][options.worker :: options.workers]
        return [options.shards[i] for i in mine]

    def _random(self, epoch: int, block: int) -> np.random.Generator:
        options = self.options
        return np.random.default_rng([options.seed, epoch, options.rank, options.worker, block])

    def _read(
        self, shards: list[str], first: int, skip: int
    ) -> Iterator[tuple[CaptionedImage, tuple[int, int]]]:
        """Samples from a place on, each with the place after it."""
        for number in range(first, len(shards)):
            passed = skip if number == first else 0
            samples = read_samples(shards[number], data_from=passed)
            for count, sample in enumerate(samples, 1):
                if count <= passed:
                    continue
                image = sample.image(shards[number])
                if sample.picture is None or not image.captions:
                    self.skipped += 1
                    continue
                yield image, (number, count)


def read_samples(shard: str, *, data_from: int | None) -> Iterator[Sample]:
    """The samples of one shard in order. Pictures before sample ``data_from`` are passed over
    unread; with None, all are.

    Members of one key lie next to each other; the key is the path up to the first dot of the file
    name. Folders, hidden files and members of other kinds are passed over. Raises DataError on a
    member that would climb out of a folder, on links and devices, and on a shard that ends early.
    """
    sample: Sample | None = None
    count = 0
    with _open(shard) as file:
        end = 0
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    tar.members = []  # type: ignore[attr-defined]  # it remembers every member
                    if member.isdir():
                        end = member.offset_data
                        continue
                    key, kind = _key(shard, member)
                    if kind not in KINDS:
                        continue
                    if sample is None or sample.key != key:
                        if sample is not None:
                            count += 1
                            yield sample
                        sample = Sample(key)
                    with_data = data_from is not None and count >= data_from
                    _add(sample, kind, shard, tar, member, with_data)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{shard!r} is no whole tar file: {error}; copy it again") from None
        # A tar reader takes a damaged header for the end; the real end is a block of zeros.
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(f"{shard!r} is cut short or damaged at byte {end}; copy it again")
    if sample is not None:
        yield sample


def _key(shard: str, member: tarfile.TarInfo) -> tuple[str, str]:
    name = member.name.removeprefix("./")
    if not is_inside(name):
        raise DataError(f"{shard!r} holds {member.name!r}, which leads out of a folder; refused")
    if not member.isreg() or member.issparse():
        raise DataError(f"{shard!r} holds {member.name!r}, which is no plain file; refused")
    folder, slash, base = name.rpartition("/")
    stem, _, kind = base.partition(".")
    if not stem or base.startswith("__"):  # hidden, or the shard's own bookkeeping
        return "", ""
    return f"{folder}{slash}{stem}", kind.lower()


def _add(
    sample: Sample,
    kind: str,
    shard: str,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    with_data: bool,
) -> None:
    if member.size > MAX_MEMBER_BYTES:
        raise DataError(
            f"{member.name!r} in {shard!r} has {member.size} bytes; at most {MAX_MEMBER_BYTES} "
            "are read"
        )
    if kind in PICTURES:
        data = _content(tar, member) if with_data else None
        sample.picture = (f"{sample.key}.{kind}", member.offset_data, member.size, data)
        return
    try:
        if kind == "txt":
            sample.text = _content(tar, member).decode("utf-8-sig").splitlines()
        else:
            found = msgspec.json.decode(_content(tar, member), type=_Json)
            captions = found.captions if found.captions is not None else found.caption
            sample.json = [captions] if isinstance(captions, str) else captions or []
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(
            f"{member.name!r} in {shard!r} is damaged ({error}); a .txt holds a caption a line, a "
            '.json {"caption": "..."} or {"captions": ["...", "..."]}'
        ) from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # a plain file always has content
    return file.read()


def _open(shard: str) -> IO[bytes]:
    try:
        if "://" not in shard:
            return Path(shard).open("rb")
        import fsspec  # type: ignore[import-untyped]

        opened: IO[bytes] = fsspec.open(shard, "rb").open()
        return opened
    except ImportError as error:
        raise DataError(
            f"the shard {shard!r} needs the package {error.name!r}: pip install {error.name}"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the shard {shard!r}: {reason}") from None
