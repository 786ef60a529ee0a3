"""A few examples of every source, small enough to live inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image

from omnimill import rng
from omnimill.infra.dataset import Dataset, Manifest
from omnimill.schema import Example, from_row

THUMBNAIL = 220
TEXT_CHARACTERS = 420


@dataclass(frozen=True)
class Sample:
    """One example as the page shows it. images and audio are data URLs with a caption each."""

    id: str
    key: str
    images: list[tuple[str, str]] = field(default_factory=list)
    audio: list[tuple[str, str]] = field(default_factory=list)
    text: list[tuple[str, str]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


def samples(dataset: Dataset, manifest: Manifest, per_source: int) -> dict[str, list[Sample]]:
    """The same examples for the same version: those whose ids come first in a keyed order."""
    chosen: dict[str, list[tuple[int, int, int]]] = {}
    shards = [ref for commit in manifest.commits for ref in commit.shards]
    for number, ref in enumerate(shards):
        table = dataset.read(ref).select(["id", "source"])
        for row, (id_, source) in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True)):
            chosen.setdefault(source, []).append((rng.digest64("sample", id_), number, row))
    return {
        source: [_sample(from_row(dataset.read(shards[n]).slice(row, 1).to_pylist()[0])) for _, n, row in first]
        for source, places in sorted(chosen.items())
        if (first := sorted(places)[:per_source])
    }


def _sample(example: Example) -> Sample:
    return Sample(
        id=example.id,
        key=example.key,
        images=[(thumbnail(image.data), f"{image.width} x {image.height}") for image in example.images[:5]],
        audio=[
            (data_url(clip.data, f"audio/{clip.format}"), f"{clip.samples / clip.sample_rate:.2f} s")
            for clip in example.audio[:5]
        ],
        text=[(part.role, _shorten(part.text)) for part in example.text[:6]],
        facts=list(_facts(example)),
    )


def _facts(example: Example) -> Iterator[str]:
    if example.trajectory is not None:
        run = example.trajectory
        yield f"{len(run.actions)} steps of {run.episode}, actions {', '.join(run.action_names)}"
    for view in example.views:
        yield f"view {view.image}: theta {view.theta:+.2f}, phi {view.phi:+.2f}, r {view.radius:.2f}"
    if example.video is not None:
        video = example.video
        yield f"segments {video.first_segment}..{video.first_segment + video.segments - 1} of {video.uri}"
    if example.meta.licence:
        yield f"licence {example.meta.licence}"


def _shorten(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS].rstrip() + " …"


def thumbnail(data: bytes) -> str:
    """A picture as a small JPEG data URL."""
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return data_url(stream.getvalue(), "image/jpeg")


def data_url(data: bytes, media_type: str) -> str:
    """Bytes as a ``data:`` URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
