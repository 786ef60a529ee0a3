"""Files under any fsspec URL, and publishing that is atomic: a reader sees a whole file or none."""

from __future__ import annotations

import io
import os
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
import fsspec.core
from blake3 import blake3
from fsspec.implementations.local import LocalFileSystem

from omnimill.errors import OmnimillError
from omnimill.infra.ranges import FIRST_BYTES, RangeReader
from omnimill.infra.retry import Truncated
from omnimill.infra.retry import patiently as _patient

T = TypeVar("T")
Mark = dict[str, str | int]

_CHUNK = 1 << 20
_HASHED_AT_ONCE = 64 << 10
_BUFFER = 256 << 10
_THREADS = 16
# Small files of a remote folder that are read at once, and how many are read ahead of who uses them.
_READERS = 64
_AHEAD = 4096
# Files of one folder from which on listing it is cheaper than asking for each.
_WORTH_LISTING = 32
# Larger files go to S3 in parts; so many are in memory at once.
_PARTS = {"chunksize": 16 << 20, "max_concurrency": 4}


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL or plain path, and the path on it."""
    if "://" not in url and "::" not in url:  # what fsspec does with a plain path, without its search for a protocol
        return _local_files(), LocalFileSystem._strip_protocol(url)
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise OmnimillError(f"cannot open {url!r}: {error}") from None
    return fs, path


@cache
def _local_files() -> LocalFileSystem:
    return fsspec.filesystem("file")  # type: ignore[no-any-return]


def _fresh(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """As :func:`filesystem`; what it remembers of listings is forgotten, other processes write there too."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    return fs, path


def is_local(url: str) -> bool:
    """Whether the URL lies on this machine's own file system."""
    return _is_local(filesystem(url)[0])


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return isinstance(fs, LocalFileSystem)


def _remote_exists(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    try:
        fs.info(path)
    except FileNotFoundError:
        return False
    return True


def join(url: str, *parts: str) -> str:
    """`url` with path parts appended, protocol kept."""
    return "/".join([url.rstrip("/"), *parts])


def exists(url: str) -> bool:
    fs, path = _fresh(url)
    if _is_local(fs):
        return bool(fs.exists(path))
    return _patient(f"looking up {url}", lambda: _remote_exists(fs, path))


def open_read(url: str, first: int = FIRST_BYTES) -> BinaryIO:
    """A binary reader; the caller closes it. One of a remote store checks lengths and tries again what fails.

    Args:
        first: least bytes that are asked of a remote store after a jump.
    """
    fs, path = _fresh(url)
    if _is_local(fs):
        return open(path, "rb")  # noqa: PTH123 - a path object would cost more than the call
    size = _patient(f"looking up {url}", lambda: fs.info(path))["size"]
    if size is None:  # a web server that does not say
        return fs.open(path, "rb")  # type: ignore[no-any-return]
    return io.BufferedReader(RangeReader(fs, path, int(size), url, first), min(_BUFFER, first))


def read_bytes(url: str) -> bytes:
    fs, path = filesystem(url)
    if _is_local(fs):
        return Path(path).read_bytes()
    with open_read(url) as stream:
        return stream.read()


def download(url: str, target: Path) -> None:
    """Copy a file to a local path."""
    with open_read(url) as stream, target.open("wb") as copy:
        for chunk in chunks(stream):
            copy.write(chunk)


def list_files(url: str) -> list[str]:
    """Every file below a folder, sorted, as URLs of the same spelling as `url`; empty when there is none."""
    fs, path = _fresh(url)
    prefix = path.rstrip("/")
    found = _patient(f"listing {url}", lambda: sorted(fs.find(prefix)) if fs.exists(prefix) else [])
    return [join(url, name[len(prefix) :].lstrip("/")) for name in found]


def list_folder(url: str) -> list[str]:
    """Names of the files directly in a folder, sorted; empty when the folder does not exist."""
    fs, path = _fresh(url)
    if _is_local(fs):
        return _local_names(path)
    entries = _patient(f"listing {url}", lambda: fs.ls(path, detail=True) if fs.exists(path) else [])
    return sorted(entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file")


def list_folders(url: str) -> list[str]:
    """Names of the folders directly in a folder, sorted; empty when the folder does not exist."""
    fs, path = _fresh(url)
    entries = _patient(f"listing {url}", lambda: fs.ls(path, detail=True) if fs.exists(path) else [])
    return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")


def _local_names(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_folder(url: str, ending: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files directly in a folder whose names end so, sorted by name; some read ahead."""
    fs, path = _fresh(url)
    if _is_local(fs):
        for name in list_folder(url):
            if name.endswith(ending):
                yield name, Path(path, name).read_bytes()
        return
    entries = _patient(f"listing {url}", lambda: fs.ls(path, detail=True) if fs.exists(path) else [])
    sizes = {entry["name"]: int(entry["size"] or 0) for entry in entries if entry["type"] == "file"}
    names = sorted(name for name in sizes if name.endswith(ending))

    def read(name: str) -> tuple[str, bytes]:
        short = name.rsplit("/", 1)[-1]
        return short, RangeReader(fs, name, sizes[name], join(url, short)).readall()

    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names), _AHEAD):
            yield from pool.map(read, names[start : start + _AHEAD])


def stat(url: str) -> Mark:
    """Size and the store's own change mark (ETag, or times of change): cheap to compare, no content read.

    On a local disk the mark holds the time of the last change of the file's record too (ctime), which no program can
    set back: content that was replaced under its old name, size and modification time has another mark.

    Raises:
        OSError: there is no such file, or it may not be read.
    """
    fs, path = _fresh(url)
    if _is_local(fs):
        return _local_mark(path)
    return _mark(_patient(f"looking up {url}", lambda: fs.info(path)))


def stats(urls: Iterable[str]) -> dict[str, Mark | None]:
    """:func:`stat` of many files, None for one that cannot be read; by listing where many lie in one folder."""
    found: dict[str, Mark | None] = dict.fromkeys(urls)
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for url in found:
        folders[url.rpartition("/")[0]].append(url)
    by_listing = {folder for folder, files in folders.items() if len(files) >= _WORTH_LISTING and not is_local(folder)}
    single = [url for folder, files in folders.items() if folder not in by_listing for url in files]
    for marks in _in_threads(_listed_marks, sorted(by_listing)):
        found.update((url, mark) for url, mark in marks.items() if url in found)
    found.update(zip(single, _in_threads(_mark_or_none, single), strict=True))
    return found


def _in_threads(work: Callable[[str], T], urls: Sequence[str]) -> Iterator[T]:
    if not urls or all(map(is_local, {urls[0], urls[-1]})):  # a local call takes less than handing it to a thread
        yield from map(work, urls)
        return
    with ThreadPoolExecutor(min(_THREADS, len(urls))) as pool:
        yield from pool.map(work, urls)


def _listed_marks(folder: str) -> dict[str, Mark]:
    fs, path = _fresh(folder)
    entries = _patient(f"listing {folder}", lambda: fs.ls(path, detail=True))
    return {join(folder, entry["name"].rsplit("/", 1)[-1]): _mark(entry) for entry in entries}


def _mark_or_none(url: str) -> Mark | None:
    try:
        return stat(url)
    except OSError:
        return None


def _mark(info: Mapping[str, Any]) -> Mark:
    mark = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or ""
    return {"bytes": int(info["size"] or 0), "mark": str(mark)}


def _local_mark(path: str) -> Mark:
    found = os.stat(path)  # noqa: PTH116 - a hundred thousand of these are one listing
    return {"bytes": found.st_size, "mark": f"{found.st_mtime_ns}-{found.st_ctime_ns}"}


def digest_file(url: str) -> str:
    """64 hex digits of blake3 over a file's content, read in pieces."""
    hasher = blake3()
    # One piece for all of a file: what is read into new memory each time costs as much as hashing it.
    piece = memoryview(bytearray(_HASHED_AT_ONCE))
    with open_read(url) as stream:
        while count := stream.readinto(piece):  # type: ignore[attr-defined]
            hasher.update(piece[:count])
    return hasher.hexdigest()


def digest_files(urls: Sequence[str]) -> list[str]:
    """:func:`digest_file` of many files, several at a time where they are remote."""
    return list(_in_threads(digest_file, urls))


def chunks(stream: BinaryIO) -> Iterator[bytes]:
    """A stream's bytes in pieces of 1 MiB."""
    while chunk := stream.read(_CHUNK):
        yield chunk
        if len(chunk) < _CHUNK:
            return


def publish_bytes(url: str, data: bytes) -> None:
    """Write a small file so that it appears whole: rename on local disks, a single PUT on object stores."""
    fs, path = filesystem(url)
    if not _is_local(fs):
        _patient(f"writing {url}", lambda: fs.pipe_file(path, data))
        return
    temporary = scratch_path(url)
    temporary.write_bytes(data)
    _rename(temporary, Path(path))


def publish_file(temporary: Path, url: str) -> None:
    """Move a finished local file to its place so that it appears whole; the temporary file is gone afterwards."""
    fs, path = filesystem(url)
    if _is_local(fs):
        _rename(temporary, Path(path))
    else:
        _patient(f"writing {url}", lambda: _put(fs, temporary, path))
        temporary.unlink()


def scratch_path(url: str) -> Path:
    """A fresh local path to prepare `url` at: beside it on a local disk (a rename is atomic there), else in TMPDIR."""
    fs, path = filesystem(url)
    folder = Path(path).parent if _is_local(fs) else Path(tempfile.gettempdir())
    folder = folder / ".partial"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / uuid.uuid4().hex


def _put(fs: fsspec.AbstractFileSystem, temporary: Path, path: str) -> None:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    fs.put_file(str(temporary), path, **(_PARTS if "s3" in protocols else {}))
    stored, size = int(fs.info(path)["size"] or 0), temporary.stat().st_size
    if stored != size:
        raise Truncated(f"{stored} of {size} bytes are stored")


def _rename(temporary: Path, target: Path) -> None:
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(target)
