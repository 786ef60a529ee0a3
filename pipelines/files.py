"""Files of a source, local or remote: which ones belong to it, and how their bytes are reached."""

from __future__ import annotations

import io
import re
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
from blake3 import blake3
from fsspec.utils import glob_translate

from omnimill.errors import BadRecord, ConfigError
from omnimill.infra import storage
from omnimill.infra.dataset import Unit

T = TypeVar("T")

# A record's own bytes go with it into quarantine up to this size.
SMALL_BYTES = 64 << 10
_BUFFER = 256 << 10
# Remote files that are read before they are asked for.
_AHEAD = 8
_CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


def find(url: str, include: Sequence[str] = ("**",), exclude: Sequence[str] = ()) -> list[str]:
    """Regular files of a folder, sorted, as URLs; or `url` itself when it is a file.

    Args:
        include, exclude: globs over the path below `url`, case-insensitive; ``**`` crosses folders, and ``**/*.jpg``
            holds for the folder itself too.

    A symbolic link belongs to a local folder only when it leads to a regular file inside that folder; linked folders,
    sockets and pipes never do.

    Raises:
        ConfigError: nothing is there, or a file's name is not UTF-8.
    """
    if not storage.exists(url):
        raise ConfigError(f"{url}: no such file or folder")
    fs, path = storage.filesystem(url)
    if fs.isfile(path):
        return [url]
    belongs = matcher(include, exclude)
    found = [file for file in storage.list_files(url) if belongs(relative(file, url))]
    if storage.is_local(url):
        root = Path(path).resolve()
        found = [file for file in found if _regular(Path(storage.filesystem(file)[1]), root)]
    for file in found:
        if file.encode("utf-8", "ignore").decode() != file:
            raise ConfigError(f"{url}: the name of {file!r} is not UTF-8; rename it or exclude it")
    return found


def matcher(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Whether a relative path fits one of `include` and none of `exclude`."""
    wanted, unwanted = (
        [re.compile(glob_translate(pattern), re.IGNORECASE) for pattern in patterns] for patterns in (include, exclude)
    )

    def belongs(name: str) -> bool:
        return any(p.match(name) for p in wanted) and not any(p.match(name) for p in unwanted)

    return belongs


def relative(url: str, root: str) -> str:
    """The path of `url` below `root`; its last part when they are the same file."""
    prefix = root.rstrip("/") + "/"
    return url[len(prefix) :] if url.startswith(prefix) else url.rsplit("/", 1)[-1]


def groups(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    """Consecutive runs of `size` items, the last one shorter."""
    rest = iter(items)
    while group := tuple(islice(rest, size)):
        yield group


def byte_ranges(source: str, url: str, size: int) -> Iterator[Unit]:
    """A file as one unit, or, when it is larger than `size` bytes, as a unit for every range of that size."""
    total = int(storage.stat(url)["bytes"])
    if total <= size:
        yield Unit(source=source, files=(url,))
        return
    for offset in range(0, total, size):
        yield Unit(source=source, files=(url,), options={"offset": offset, "length": size})


def read_file(url: str, max_bytes: int) -> bytes:
    """A file's bytes.

    Raises:
        BadRecord: ``empty_file`` or ``file_too_large``.
    """
    with storage.open_read(url) as stream:
        # Python sets memory aside for all that is asked for.
        data = stream.read(min(max_bytes + 1, _BUFFER))
        if len(data) == _BUFFER:
            data += stream.read(max_bytes + 1 - _BUFFER)
    if not data:
        raise BadRecord("empty_file", "no bytes")
    if len(data) > max_bytes:
        raise BadRecord("file_too_large", f"more than {max_bytes} bytes")
    return data


def read_files(urls: Sequence[str], max_bytes: int) -> Iterator[bytes | BadRecord]:
    """:func:`read_file` of many files in order, remote ones some ahead; a file that is refused gives its verdict."""
    if not urls or storage.is_local(urls[0]):
        yield from (_read_or_refuse(url, max_bytes) for url in urls)
        return
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="read") as pool:
        ahead: deque[Future[bytes | BadRecord]] = deque()
        for url in urls:
            ahead.append(pool.submit(_read_or_refuse, url, max_bytes))
            if len(ahead) > _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _read_or_refuse(url: str, max_bytes: int) -> bytes | BadRecord:
    try:
        return read_file(url, max_bytes)
    except BadRecord as refused:
        return refused


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """A local path with the content of `url`: the file itself, or a copy that is gone when the block is left."""
    _, path = storage.filesystem(url)
    if storage.is_local(url):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.rsplit("/", 1)[-1]
        storage.download(url, copy)
        yield copy


def is_compressed(url: str) -> bool:
    return any(url.lower().endswith(ending) for ending in _CODECS)


@contextmanager
def open_expanded(url: str) -> Iterator[BinaryIO]:
    """A reader of a file's bytes; those of ``.gz``, ``.zst`` and ``.bz2`` files come decompressed.

    Raises:
        BadRecord: ``compression_damaged``, while reading.
    """
    codec = next((codec for ending, codec in _CODECS.items() if url.lower().endswith(ending)), None)
    with storage.open_read(url) as stream:
        if codec is None:
            yield io.BufferedReader(stream, _BUFFER)  # type: ignore[type-var, arg-type]
            return
        expanded = pa.CompressedInputStream(pa.PythonFile(stream, "r"), codec)
        try:
            yield io.BufferedReader(expanded, _BUFFER)
        except OSError as fault:
            if fault.errno is not None:  # the file system's, not the codec's
                raise
            raise BadRecord("compression_damaged", f"{codec}: {fault}") from fault


@dataclass(frozen=True)
class Line:
    """A line without its end. offset, length: its byte range. data: None when it is longer than allowed."""

    offset: int
    length: int
    digest: str
    data: bytes | None


def read_lines(stream: Any, max_bytes: int, start: int = 0, stop: int | None = None) -> Iterator[Line]:
    """Lines whose first byte lies in ``start <= offset < stop``, blank ones left out.

    So ranges that cover a file without overlap give each of its lines exactly once. Memory stays within `max_bytes`
    whatever the line's length.
    """
    position = 0
    if start > 0:
        # The line at `start` is ours only if the byte before it ends a line.
        position = stream.seek(start - 1)
        position = _to_line_end(stream, position, stop)
    while stop is None or position < stop:
        data = stream.readline(max_bytes + 2)
        if not data:
            return
        offset, position = position, position + len(data)
        text = data.removesuffix(b"\n").removesuffix(b"\r")
        if len(text) > max_bytes:
            hasher = blake3(data)
            length = len(data)
            while data and not data.endswith(b"\n"):
                data = stream.readline(_BUFFER)
                hasher.update(data)
                length += len(data)
            position = offset + length
            yield Line(offset, length, hasher.hexdigest(), None)
        elif text.strip():
            yield Line(offset, len(text), blake3(text).hexdigest(), text)


def _to_line_end(stream: Any, position: int, stop: int | None) -> int:
    """Read on to just behind the next line end, or until no line can begin before `stop`."""
    while stop is None or position < stop:
        data = stream.readline(_BUFFER)
        position += len(data)
        if not data or data.endswith(b"\n"):
            break
    return position


def _regular(path: Path, root: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and (not path.is_symlink() or path.resolve().is_relative_to(root))
