"""Pictures that a row holds or names: bytes, base64, or a path below a folder."""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Mapping
from typing import Any, Literal

from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.pipelines import files
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.text import text_value
from omnimill.schema import Image

_DATA_URL = re.compile(r"data:image/[\w.+-]{1,32};base64,")
Spelling = Literal["path", "base64"]


def media_url(folder: str, name: str) -> str:
    """The URL of a file that an annotation names, below `folder`.

    Raises:
        BadRecord: ``path_outside`` when it leads out of the folder.
    """
    path = posixpath.normpath(name.replace("\\", "/"))
    if path.startswith(("/", "../")) or path in ("..", ".") or "://" in name or "\0" in name:
        raise BadRecord("path_outside", f"{name!r} leads out of the folder of the pictures")
    return storage.join(folder, path)


def picture_path(value: Any) -> str | None:
    """The path that a field of a row names, None when it holds the picture itself."""
    if isinstance(value, Mapping) and value.get("bytes") is None:
        value = value.get("path")
    return value if isinstance(value, str) and not _DATA_URL.match(value) else None


def row_picture(value: Any, field: str, folder: str, settings: ImageSettings, spelling: Spelling = "path") -> Image:
    """The picture of a field.

    Args:
        value: bytes, a struct with ``bytes`` (or ``path``) as Hugging Face's Parquet has it, or text.
        folder: in which paths begin. spelling: what a text is.

    Raises:
        BadRecord: ``missing_field``, ``wrong_type``, ``missing_file``, ``path_outside``, ``invalid_base64``, and as
            `decode_image`.
    """
    data, uri = row_bytes(value, field, folder, settings.max_bytes, spelling)
    return decode_image(data, settings, uri)


def row_bytes(
    value: Any, field: str, folder: str, max_bytes: int, spelling: Spelling = "path"
) -> tuple[bytes, str | None]:
    """The bytes of a picture and, where they are in a file of their own, its URL; raises as `row_picture`."""
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        return value, None
    text = text_value(value, field)
    match = _DATA_URL.match(text)
    if match is not None or spelling == "base64":
        return _decoded(text[match.end() if match else 0 :], field, max_bytes), None
    url = media_url(folder, text)
    try:
        return files.read_file(url, max_bytes), url
    except FileNotFoundError:
        raise BadRecord("missing_file", f"no picture {text!r}") from None


def _decoded(text: str, field: str, max_bytes: int) -> bytes:
    if len(text) > 2 * max_bytes:
        raise BadRecord("image_too_large", f"{field!r}: {len(text)} characters of base64; at most {2 * max_bytes}")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as fault:
        raise BadRecord("invalid_base64", f"{field!r}: {fault}") from None
