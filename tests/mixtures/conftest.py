"""Small token datasets, written through the real store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from omnimill.infra.dataset import Commit, Counts, Dataset, Manifest
from omnimill.tokens import TOKEN_SCHEMA, TokenLayout

Row = dict[str, Any]
Text = tuple[str, int] | tuple[str, int, int | None, int | None] | tuple[str, int, int | None, int | None, int | None]
Target = tuple[str, int | None, int | None]


def token_row(
    key: str,
    texts: Sequence[Text] = (),
    images: int = 0,
    audio: int = 0,
    image_codes: int | None = None,
    audio_codes: int | None = None,
    patches: int = 9,
    targets: Sequence[Target] = (),
) -> Row:
    """A row with texts (role, length, image, clip, item), so many pictures and clips, and targets (role, image, item).

    The last `image_codes` (default: all) pictures were encoded, with 4 codes each, and so for clips, with 2.
    """
    segments = [(*text, None, None, None)[:5] for text in texts]
    encoded_images = [4 if i >= images - (images if image_codes is None else image_codes) else 0 for i in range(images)]
    encoded_audio = [2 if i >= audio - (audio if audio_codes is None else audio_codes) else 0 for i in range(audio)]
    return {
        "id": f"id-{key}",
        "key": key,
        "text_roles": [role for role, *_ in segments],
        "text_images": [image for _, _, image, _, _ in segments],
        "text_audio": [clip for _, _, _, clip, _ in segments],
        "text_items": [item for *_, item in segments],
        "text_lengths": [length for _, length, *_ in segments],
        "text_ids": [list(range(length)) for _, length, *_ in segments],
        "image_patches": [patches] * images,
        "history_patches": [4] * images,
        "image_codes_lengths": encoded_images,
        "image_data": [f"picture {i}".encode() for i in range(images)],
        "image_codes": [list(range(n)) for n in encoded_images],
        "audio_patches": [6] * audio,
        "audio_codes_lengths": encoded_audio,
        "audio_data": [f"clip {i}".encode() for i in range(audio)],
        "audio_codes": [list(range(n)) for n in encoded_audio],
        "target_roles": [role for role, _, _ in targets],
        "target_images": [image for _, image, _ in targets],
        "target_items": [item for _, _, item in targets],
        "target_heights": [16 for _ in targets],
        "target_widths": [16 for _ in targets],
        "target_known": [None for _ in targets],
        "target_codes_lengths": [4 for _ in targets],
        "target_codes": [[i] * 4 for i in range(len(targets))],
    }


def write_tokens(
    root: Path | str, sources: Mapping[str, Sequence[Row]], shard_rows: int = 3, name: str = "tokens"
) -> Manifest:
    """Publish a token dataset: per source one unit, its rows in shards of `shard_rows`."""
    dataset = Dataset(str(root), name)
    commits = []
    for source, rows in sources.items():
        tables = [
            pa.Table.from_pylist([{**row, "source": source} for row in rows[start : start + shard_rows]], TOKEN_SCHEMA)
            for start in range(0, len(rows), shard_rows)
        ]
        shards = tuple(dataset.publish_shard(table) for table in tables)
        counts = Counts(records_in=len(rows), kept=len(rows), examples_written=len(rows))
        commits.append(Commit(unit=f"{source}-0", source=source, recipe="r", inputs=(), shards=shards, counts=counts))
    layout = TokenLayout(tokenizers="demo", digests={})
    _, manifest = dataset.publish_manifest("tokens", commits, attributes={"layout": layout.model_dump(mode="json")})
    return manifest


@pytest.fixture(scope="session")
def row() -> Callable[..., Row]:
    return token_row


@pytest.fixture(scope="session")
def tokens() -> Callable[..., Manifest]:
    return write_tokens
