"""Requests as lines of a file, and their answers as rows of Arrow shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from blake3 import blake3
from pydantic import Field, NonNegativeInt, ValidationError

from omnimill.config import Config
from omnimill.errors import ConfigError
from omnimill.infra import storage
from omnimill.tokenizers.audio import encode_waveform
from omnimill.tokenizers.image import encode_png
from omnimill.training.generation.generate import Generated
from omnimill.training.generation.interleaved import Interleaved
from omnimill.training.rendering.prompt import Target

REQUEST_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),  # text, image or audio
        pa.field("prompt", pa.string(), nullable=False),
        # Text ids without EOS, or codes from 0; the text; a PNG or a WAV file.
        pa.field("ids", pa.list_(pa.int32()), nullable=False),
        ("text", pa.string()),
        ("media", pa.large_binary()),
        # Of text and pictures in turn: either in every piece, pictures as PNG files.
        ("pieces", pa.list_(pa.struct([("text", pa.string()), ("picture", pa.large_binary())]))),
        # Tokens of the prompt that did not fit.
        pa.field("cut", pa.int32(), nullable=False),
    ]
)


class File(Config):
    """A picture or sound file as it was when it was listed."""

    url: str
    digest: str
    bytes: int


class Line(Config):
    """A request as people write it: a JSON object on a line of its own.

    key: what the answer is found by, no two alike. target: what is wanted. images, audio: files, oldest first; relative
    paths start from the file of requests. numbers, negative: see `omnimill.training.rendering.prompt.Request`.
    """

    key: str = Field(min_length=1)
    target: Target
    prompt: str = ""
    images: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    numbers: NonNegativeInt = 0
    negative: str | None = None


class Ask(Config):
    """A request with its files."""

    key: str
    target: Target
    prompt: str
    images: tuple[File, ...]
    audio: tuple[File, ...]
    numbers: int
    negative: str | None

    @property
    def files(self) -> tuple[File, ...]:
        return (*self.images, *self.audio)


def read_requests(path: str) -> list[Ask]:
    """The requests of a JSON Lines file; empty lines are passed over.

    Raises:
        ConfigError: a line is no request, a key comes twice, or a file cannot be read; with file and line.
    """
    try:
        lines = storage.read_bytes(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    asks: dict[str, Ask] = {}
    known: dict[str, File] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        ask = _ask(line, where, path, known)
        if ask.key in asks:
            raise ConfigError(f"{where}: key: found {ask.key!r} again; every request has a key of its own")
        asks[ask.key] = ask
    if not asks:
        raise ConfigError(f"{path}: holds no requests")
    return list(asks.values())


def _ask(line: str, where: str, path: str, known: dict[str, File]) -> Ask:
    try:
        written = Line.model_validate(json.loads(line))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}; found {e['input']!r}" for e in error.errors())
        raise ConfigError(f"{where}: {faults}; allowed keys: {', '.join(Line.model_fields)}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: not a JSON object: {error}") from None

    def files(name: str, paths: Sequence[str]) -> tuple[File, ...]:
        return tuple(_file(f"{where}: {name}", _beside(path, one), known) for one in paths)

    media = {"images": files("images", written.images), "audio": files("audio", written.audio)}
    return Ask(**{**written.model_dump(), **media})


def _beside(path: str, written: str) -> str:
    if not storage.is_local(written) or Path(written).is_absolute():
        return written
    return storage.join(path.rpartition("/")[0] or ".", written)


def _file(where: str, url: str, known: dict[str, File]) -> File:
    if url not in known:
        try:
            data = storage.read_bytes(url)
        except OSError as error:
            raise ConfigError(f"{where}: {url} cannot be read: {error}") from None
        known[url] = File(url=url, digest=blake3(data).hexdigest(), bytes=len(data))
    return known[url]


def to_row(ask: Ask, answer: Generated, sample_rate: int) -> dict[str, Any]:
    """A row of `REQUEST_SCHEMA`."""
    media = None
    if answer.picture is not None:
        media = encode_png(answer.picture)
    elif answer.waveform is not None:
        media = encode_waveform(answer.waveform, sample_rate, "WAV")
    return {
        "key": ask.key,
        "target": ask.target,
        "prompt": ask.prompt,
        "ids": answer.ids,
        "text": answer.text,
        "media": media,
        "cut": answer.cut,
    }


def to_sequence_row(ask: Ask, answer: Interleaved) -> dict[str, Any]:
    """The same of a decoder-only backbone's answer: of what was asked for in one piece without pieces."""
    pieces = [{"text": piece.text, "picture": piece.png} for piece in answer.pieces]
    single = ask.target != "interleaved"
    return {
        "key": ask.key,
        "target": ask.target,
        "prompt": ask.prompt,
        "ids": [token for piece in answer.pieces for token in piece.ids],
        "text": answer.text if ask.target != "image" else None,
        "media": next((piece["picture"] for piece in pieces), None) if ask.target == "image" else None,
        "pieces": None if single else pieces,
        "cut": answer.cut,
    }


def to_rows(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """A table of `REQUEST_SCHEMA`."""
    return pa.Table.from_pylist(list(rows), REQUEST_SCHEMA)
