"""Files under any fsspec URL, and publishing that is atomic: a reader sees a whole file or none."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import fsspec
from blake3 import blake3
from fsspec.implementations.local import LocalFileSystem

from omnimill.errors import OmnimillError

_CHUNK = 8 << 20


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL or plain path, and the path on it."""
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise OmnimillError(f"cannot open {url!r}: {error}") from None
    return fs, path


def is_local(url: str) -> bool:
    """Whether the URL lies on this machine's own file system."""
    return isinstance(filesystem(url)[0], LocalFileSystem)


def join(url: str, *parts: str) -> str:
    """`url` with path parts appended, protocol kept."""
    return "/".join([url.rstrip("/"), *parts])


def exists(url: str) -> bool:
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def open_read(url: str) -> BinaryIO:
    """A binary reader; the caller closes it."""
    fs, path = filesystem(url)
    return fs.open(path, "rb")  # type: ignore[no-any-return]


def read_bytes(url: str) -> bytes:
    fs, path = filesystem(url)
    return fs.cat_file(path)  # type: ignore[no-any-return]


def list_files(url: str) -> list[str]:
    """Every file below a folder, sorted, as URLs of the same spelling as `url`; empty when there is none."""
    fs, path = filesystem(url)
    prefix = path.rstrip("/")
    found = sorted(fs.find(prefix)) if fs.exists(prefix) else []
    return [join(url, name[len(prefix) :].lstrip("/")) for name in found]


def list_folder(url: str) -> list[str]:
    """Names of the files directly in a folder, sorted; empty when the folder does not exist."""
    fs, path = filesystem(url)
    if not fs.exists(path):
        return []
    return sorted(entry["name"].rsplit("/", 1)[-1] for entry in fs.ls(path, detail=True) if entry["type"] == "file")


def stat(url: str) -> dict[str, str | int]:
    """Size and the store's own change mark (modification time or ETag): cheap to compare, no content read."""
    fs, path = filesystem(url)
    info = fs.info(path)
    mark = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or ""
    return {"bytes": int(info["size"] or 0), "mark": str(mark)}


def digest_file(url: str) -> str:
    """64 hex digits of blake3 over a file's content, read in chunks."""
    hasher = blake3()
    with open_read(url) as stream:
        for chunk in chunks(stream):
            hasher.update(chunk)
    return hasher.hexdigest()


def chunks(stream: BinaryIO) -> Iterator[bytes]:
    """A stream's bytes in pieces of 8 MiB."""
    while chunk := stream.read(_CHUNK):
        yield chunk


def publish_bytes(url: str, data: bytes) -> None:
    """Write a small file so that it appears whole: rename on local disks, a single PUT on object stores."""
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
        return
    temporary = scratch_path(url)
    temporary.write_bytes(data)
    _rename(temporary, Path(path))


def publish_file(temporary: Path, url: str) -> None:
    """Move a finished local file to its place so that it appears whole; the temporary file is gone afterwards."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        _rename(temporary, Path(path))
    else:
        fs.put_file(str(temporary), path)
        temporary.unlink()


def scratch_path(url: str) -> Path:
    """A fresh local path to prepare `url` at: beside it on a local disk (a rename is atomic there), else in TMPDIR."""
    fs, path = filesystem(url)
    folder = Path(path).parent if isinstance(fs, LocalFileSystem) else Path(tempfile.gettempdir())
    folder = folder / ".partial"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / uuid.uuid4().hex


def _rename(temporary: Path, target: Path) -> None:
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(target)
