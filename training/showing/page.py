"""The page of ``mixture show --html``: what the model would read and write, one self-contained HTML file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from PIL import Image

from omnimill.infra.report.media import Box, box, data_url
from omnimill.infra.report.template import page_template
from omnimill.tokenizers import audio, image
from omnimill.training.showing.example import ShownClip, ShownExample, ShownPicture

# Pictures up to this side are stored as they are, larger ones as JPEG.
_SMALL_SIDE = 128
# Spectrograms are enlarged by whole factors to about this height.
_SPECTROGRAM_HEIGHT = 128
# With more of a kind than this on a picture, their labels would hide it; they are in the text.
_MOST_LABELS = 12


@dataclass(frozen=True)
class _Medium:
    """A picture or clip on the page. url: of the picture, or of the sound; spectrogram: of a clip."""

    title: str
    url: str
    facts: str
    boxes: tuple[Box, ...] = ()
    spectrogram: str = ""


@dataclass(frozen=True)
class _Card:
    shown: ShownExample
    pictures: tuple[_Medium, ...]
    clips: tuple[_Medium, ...]
    target_pictures: tuple[_Medium, ...]
    target_clips: tuple[_Medium, ...]


def write_page(path: Path, title: str, examples: Sequence[ShownExample], missing: Sequence[str] = ()) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        title: what is shown.
        examples: in the order of the page; those of a task in a row.
        missing: why tasks have no example.
    """
    tasks: dict[str, list[_Card]] = {}
    for example in examples:
        tasks.setdefault(example.task, []).append(_card(example))
    page = page_template(Path(__file__).with_name("show_page.html")).render(
        title=title, tasks=tasks, missing=missing, count=len(examples)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def rendered(examples: Sequence[ShownExample]) -> Markup:
    """Examples as a part of another page of the house."""
    page = page_template(Path(__file__).with_name("shown_examples.html"))
    # The template escapes what it is given.
    return Markup(page.render(cards=[_card(example) for example in examples]))  # noqa: S704


def _card(example: ShownExample) -> _Card:
    return _Card(
        example,
        tuple(map(_picture, example.pictures)),
        tuple(map(_clip, example.clips)),
        tuple(map(_picture, example.target_pictures)),
        tuple(map(_clip, example.target_clips)),
    )


def _picture(shown: ShownPicture) -> _Medium:
    few = len(shown.marks) <= _MOST_LABELS and all(len(mark.numbers) == 4 for mark in shown.marks)
    boxes = tuple(box(mark.numbers, mark.label if few else "", mark.side) for mark in shown.marks)
    return _Medium(shown.title, _url(shown.pixels), _kept(shown.patches), boxes)


def _clip(shown: ShownClip) -> _Medium:
    url = data_url(shown.data, shown.media_type)
    return _Medium(shown.title, url, _kept(shown.patches), spectrogram=_spectrogram(shown))


def _kept(patches: tuple[int, int] | None) -> str:
    return "" if patches is None else f"{patches[0]} of {patches[1]} patches"


def _url(pixels: image.ByteArray) -> str:
    if max(pixels.shape[:2]) <= _SMALL_SIDE:
        return data_url(image.encode_png(pixels), "image/png")
    return data_url(image.encode_jpeg(pixels, quality=88), "image/jpeg")


def _spectrogram(shown: ShownClip) -> str:
    """Time to the right, pitch upwards; patches that the encoder does not get are dark."""
    lowest = float(np.log(audio.FLOOR))
    # Exact zeros are silence, which lies below every other value.
    levels = np.where(shown.mel == 0, lowest, shown.mel)
    highest = max(float(shown.mel.max()), lowest + 1.0)
    colours = colormaps["magma"](np.clip((levels - lowest) / (highest - lowest), 0, 1))[..., :3]
    pixels = np.rint(np.where(shown.visible[..., None], colours, colours * 0.25) * 255).astype(np.uint8)
    upright = pixels.transpose(1, 0, 2)[::-1]
    factor = max(1, _SPECTROGRAM_HEIGHT // upright.shape[0])
    stream = io.BytesIO()
    enlarged = upright.repeat(factor, axis=0).repeat(factor, axis=1)
    Image.fromarray(np.ascontiguousarray(enlarged)).quantize(128).save(stream, "PNG")
    return data_url(stream.getvalue(), "image/png")
