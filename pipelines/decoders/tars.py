"""Members of tar archives from strangers: read as a stream, nothing written to disk, damage and tricks named."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from omnimill.errors import BadRecord
from omnimill.infra import storage

_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
# Long names and attributes; tarfile holds them in memory.
_MAX_HEADER_BYTES = 1 << 20
# A compressed archive may grow to this many times its size, and by a little more.
_MAX_EXPANSION = 200
_FREE_EXPANSION = 256 << 20


@dataclass(frozen=True)
class Member:
    """A file of an archive. offset, end: its bytes in the (decompressed) archive, header and data.

    data: None when `fault` says why it is refused.
    """

    name: str
    offset: int
    end: int
    data: bytes | None
    fault: BadRecord | None = None


def read_members(url: str, max_member_bytes: int) -> Iterator[Member]:
    """Members of a tar file in order, plain or compressed with gzip, bzip2 or xz; folders are left out.

    Links, devices, names that lead out of the archive and members above `max_member_bytes` come with a fault.

    Raises:
        BadRecord: where reading cannot go on, after all members before it: ``archive_unreadable``,
            ``archive_damaged``, ``archive_truncated`` (also when the end-of-archive mark is missing),
            ``archive_too_large``.
    """
    limit = int(storage.stat(url)["bytes"]) * _MAX_EXPANSION + _FREE_EXPANSION
    try:
        with storage.open_read(url) as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive:
            for header in archive:
                end = header.offset_data + header.size
                if end > limit:
                    raise BadRecord("archive_too_large", f"more than {_MAX_EXPANSION} times its compressed size")
                if not header.isdir():
                    yield _member(archive, header, end, max_member_bytes)
                archive.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, zlib.error) as fault:
        reason = "archive_truncated" if "unexpected end" in str(fault) else "archive_unreadable"
        raise BadRecord(reason, str(fault)) from fault


def _member(archive: tarfile.TarFile, header: tarfile.TarInfo, end: int, max_bytes: int) -> Member:
    fault = _fault(header, max_bytes)
    data = None
    if fault is None:
        reader = archive.extractfile(header)
        data = reader.read() if reader is not None else b""
    name = header.name.encode("utf-8", "backslashreplace").decode()
    return Member(name, header.offset, end, data, fault)


def _fault(header: tarfile.TarInfo, max_bytes: int) -> BadRecord | None:
    path = PurePosixPath(header.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return BadRecord("unsafe_member_name", f"{header.name!r} leads out of the archive")
    if header.issym() or header.islnk():
        return BadRecord("link_member", f"a link to {header.linkname!r}")
    if not header.isreg() or header.issparse():
        return BadRecord("special_member", f"type {header.type!r} is not a plain file")
    if header.size > max_bytes:
        return BadRecord("member_too_large", f"{header.size} bytes; at most {max_bytes}")
    return None


def gunzip(data: bytes, max_bytes: int) -> bytes:
    """A gzip member's content.

    Raises:
        BadRecord: ``compression_damaged`` or ``member_too_large``.
    """
    inflater = zlib.decompressobj(wbits=31)
    try:
        content = inflater.decompress(data, max_bytes + 1)
    except zlib.error as fault:
        raise BadRecord("compression_damaged", str(fault)) from None
    if len(content) > max_bytes:
        raise BadRecord("member_too_large", f"more than {max_bytes} bytes uncompressed")
    if not inflater.eof:
        raise BadRecord("compression_damaged", "the gzip stream ends early")
    return content


class _Header(tarfile.TarInfo):
    """A member header that does not let a damaged archive pass for one that has ended."""

    @classmethod
    def fromtarfile(cls, archive: Any) -> Any:
        start = archive.fileobj.tell()
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as fault:
            kind = "unreadable" if start == 0 else "damaged"
            if isinstance(fault, tarfile.EmptyHeaderError | tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
                kind = "truncated"
            raise BadRecord(f"archive_{kind}", f"at byte {start}: {fault}") from fault

    def _proc_member(self, archive: Any) -> Any:
        if self.type in _EXTENDED and self.size > _MAX_HEADER_BYTES:
            raise BadRecord("archive_damaged", f"an extended header of {self.size} bytes; at most {_MAX_HEADER_BYTES}")
        return super()._proc_member(archive)  # type: ignore[misc]
