"""What evaluation sets hold, in a form that training data are compared with: hashes of word runs and of pictures.

Built once per content and kept as ``<root>/references/<digest>.arrow``: a table of one row. A task holds it whole: 8
bytes per run of words, 16 + 64 bytes per picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from numpy.typing import NDArray
from pydantic import model_validator

from omnimill.config import Config, digest_json
from omnimill.errors import BadRecord, ConfigError, RecordDropped
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import Dataset
from omnimill.pipelines import files
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.sniff import HEAD_BYTES, sniff
from omnimill.pipelines.decoders.text import parse_json, plain_text
from omnimill.pipelines.dedup.image_hash import BITS, hash_picture
from omnimill.pipelines.dedup.shingles import shingles_of
from omnimill.schema import Image

REFERENCES_VERSION = 1
_TABLES = (".parquet",)
_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".ndjson.zst")
_TEXTS = (".txt", ".md", ".json")
_FILE_BYTES = 1 << 30
_LINE_BYTES = 64 << 20
_BATCH_TEXTS = 4096
_DIGEST_BYTES, _HASH_BYTES = 16, BITS // 8


class Reference(Config):
    """An evaluation set: a file or folder (JSON Lines, JSON, Parquet, plain text, pictures) or a dataset of the root.

    Of tables every string counts, in lists and objects too, and every binary value that is a picture.
    """

    path: str | None = None
    dataset: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("either `path` or `dataset` must be given")
        return self


@dataclass
class Content:
    """Texts and pictures of evaluation sets. pictures: digest of the file, 64 hex digits, and what is stored of it."""

    texts: list[str] = field(default_factory=list)
    pictures: list[tuple[str, Image | None]] = field(default_factory=list)


@dataclass(frozen=True)
class References:
    """runs: hashes of runs of words, sorted, uint64. digests: of picture files, sorted, as bytes of 16.

    hashes: perceptual hashes of pictures and of their mirror images, uint8 [2 x pictures, 32].
    """

    runs: NDArray[np.uint64]
    digests: NDArray[np.bytes_]
    hashes: NDArray[np.uint8]

    @classmethod
    def load(cls, url: str) -> References:
        """What `build` stored."""
        (row,) = arrow_files.read_table(url).to_pylist()
        return cls(
            np.frombuffer(row["runs"], "<u8"),
            np.frombuffer(row["digests"], f"S{_DIGEST_BYTES}"),
            np.frombuffer(row["hashes"], np.uint8).reshape(-1, _HASH_BYTES),
        )


def build(against: Sequence[Reference], root: str, ngram: int, min_words: int) -> tuple[str, str]:
    """Read evaluation sets, unless that has been done for the same content and settings.

    Returns:
        The digest (64 hex digits) of content and settings, and where the references lie.

    Raises:
        ConfigError: there is nothing at a place, or it cannot be read.
    """
    contents = [_state(reference, root) for reference in against]
    digest = digest_json([REFERENCES_VERSION, sorted(contents), ngram, min_words])
    url = storage.join(root, "references", f"{digest}.arrow")
    if not storage.exists(url):
        runs: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
        digests: set[bytes] = set()
        hashes: set[bytes] = set()
        for content in (part for reference in against for part in _contents(reference, root)):
            for start in range(0, len(content.texts), _BATCH_TEXTS):
                found = shingles_of(content.texts[start : start + _BATCH_TEXTS], ngram)
                runs.append(np.unique(found.hashes[found.words[found.row_of] >= min_words]))
            for name, image in content.pictures:
                digests.add(bytes.fromhex(name)[:_DIGEST_BYTES])
                pair = None if image is None else hash_picture(image)
                hashes |= set() if pair is None else {each.tobytes() for each in pair}
        columns = {
            "runs": np.unique(np.concatenate(runs)).astype("<u8").tobytes(),
            "digests": b"".join(sorted(digests)),
            "hashes": b"".join(sorted(hashes)),
        }
        arrow_files.write_table(
            pa.table({name: pa.array([value], pa.large_binary()) for name, value in columns.items()}), url
        )
    return digest, url


def _state(reference: Reference, root: str) -> list[str]:
    """What the content of an evaluation set is known by."""
    if reference.dataset is not None:
        return [Dataset(root, reference.dataset).manifest()[0]]
    return sorted(storage.digest_file(url) for url in _files(str(reference.path)))


def _files(path: str) -> list[str]:
    try:
        found = files.find(path) if not _is_file(path) else [path]
    except OSError as error:
        raise ConfigError(f"against {path}: {error}") from None
    if not found:
        raise ConfigError(f"against {path}: there is no file")
    return found


def _is_file(path: str) -> bool:
    fs, place = storage.filesystem(path)
    return bool(fs.isfile(place))


def _contents(reference: Reference, root: str) -> Iterator[Content]:
    if reference.dataset is not None:
        yield from _dataset(Dataset(root, reference.dataset))
        return
    for url in _files(str(reference.path)):
        try:
            yield from _file(url)
        except (BadRecord, OSError, pa.ArrowException) as fault:
            raise ConfigError(f"against {url}: {fault}") from None


def _dataset(dataset: Dataset) -> Iterator[Content]:
    _, manifest = dataset.manifest()
    for ref in (ref for commit in manifest.commits for ref in commit.shards):
        for batch in dataset.read(ref).select(["text", "images"]).to_batches():
            content = Content()
            for row in batch.to_pylist():
                content.texts += [segment["text"] for segment in row["text"]]
                content.pictures += [(image["digest"], Image(**image)) for image in row["images"]]
            yield content


def _file(url: str) -> Iterator[Content]:
    name = PurePosixPath(url).name.lower()
    if name.endswith(_TABLES):
        with storage.open_read(url) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(256):
                yield _strings(batch.to_pylist())
    elif name.endswith(_LINES):
        with files.open_expanded(url) as stream:
            for line in files.read_lines(stream, _LINE_BYTES):
                if line.data is None:
                    raise BadRecord("line_too_long", f"a line of {line.length} bytes; at most {_LINE_BYTES}")
                yield _strings(parse_json(line.data))
    else:
        data = files.read_file(url, _FILE_BYTES)
        if name.endswith(_TEXTS):
            yield _strings(parse_json(data)) if name.endswith(".json") else Content(texts=[plain_text(data)])
        else:
            yield _strings(data)


def _strings(value: Any) -> Content:
    """All strings and pictures inside a value."""
    content = Content()
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            content.texts.append(item)
        elif isinstance(item, bytes) and (kind := sniff(item[:HEAD_BYTES])) and kind.medium == "image":
            content.pictures.append((blake3(item).hexdigest(), _picture(item)))
        elif isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list):
            stack += item
    return content


def _picture(data: bytes) -> Image | None:
    try:
        return decode_image(data, ImageSettings()).settled()
    except (BadRecord, RecordDropped):
        return None
