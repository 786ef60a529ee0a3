"""What a user asks for, as an example of the model's own kind: rendered exactly as training renders it.

A request becomes a row of one prompt, the given pictures and clips, and a placeholder where training has the target. So
prompt, history markers, patches and positions come out of `omnimill.training.rendering.pairs`, and there is one way to
make them. As in training, a picture given for an image target (or a clip for an audio target) is an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import soxr

from omnimill.errors import BadRecord, ConfigError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.row_columns import RowContent
from omnimill.rng import Key
from omnimill.tokenizers import audio, image
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokens import TokenLayout
from omnimill.training.loading.media import Clip, Picture
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Rendered, Renderer
from omnimill.training.rendering.sequences import SequenceRenderer
from omnimill.training.rendering.settings import RenderSettings

# interleaved: text and pictures in turn, of decoder-only backbones alone.
Target = Literal["text", "image", "audio", "interleaved"]

_PROMPT, _ANSWER = "prompt", "answer"
_STREAMS = {"image": ("image", "image_history"), "audio": ("audio", "audio_history")}
_UNLIMITED = 1 << 20
# An id as examples have it: key of draws that decide nothing here.
_ID = "0" * 32


@dataclass(frozen=True)
class Request:
    """text: the prompt. pictures: encoded images, clips: encoded sound files; oldest first. target: what is wanted.

    numbers: that belong together in a text of numbers (4: boxes), see `omnimill.training.generation.location_rule`; 0:
    none do.
    negative: the prompt that guidance moves away from; None: the one that the model was trained with.
    key: of the answer's draws.
    """

    target: Target
    text: str = ""
    pictures: Sequence[bytes] = ()
    clips: Sequence[bytes] = ()
    numbers: int = 0
    negative: str | None = None
    key: Key = ""


@dataclass(frozen=True)
class Asked:
    """Something to be answered.

    key: of the answer's draws. example: as training renders it; of its target only the number of slots and their
    positions mean something. negative: the same with a prompt that says nothing, for guidance; None for text.
    """

    key: Key
    example: Rendered
    negative: Rendered | None = None


@dataclass(frozen=True)
class Opening:
    """The same for a decoder-only backbone, which goes on with what it is given.

    target: what is wanted. ids: what comes before it, BOS first. negative: the prompt that guidance moves away from, as
    of `Request`. cut: tokens of the prompt that did not fit.
    """

    key: Key
    target: Target
    ids: Sequence[int]
    negative: str | None = None
    cut: int = 0


def render_request(
    request: Request, layout: TokenLayout, text: TextTokenizer, settings: RenderSettings
) -> tuple[Asked, int]:
    """The request as training renders examples, and how many tokens of its prompt had to be cut.

    Args:
        settings: those that the model was trained with, but everything is kept, see :func:`whole_renderer`.

    Raises:
        ConfigError: more pictures or clips than the model reads.
        BadRecord: a picture or clip cannot be decoded.
    """
    if request.target == "interleaved":
        raise ConfigError("--target: found 'interleaved', which decoder-only backbones alone write")
    for name, given in (("image", request.pictures), ("audio", request.clips)):
        most = settings.history_frames + (request.target != name)
        if len(given) > most:
            raise ConfigError(f"--{name}: found {len(given)} files, the model reads at most {most} for this target")
    example, cut = _rendered(request, layout, text, settings)
    negative = None
    if request.target != "text":
        prompt = uninformative(request.target, settings) if request.negative is None else request.negative
        negative, _ = _rendered(replace(request, text=prompt), layout, text, settings)
    return Asked(request.key, example, negative), cut


def uninformative(target: Target, settings: RenderSettings) -> str:
    """The prompt that says nothing: of a picture the one that training puts in others' place; of sound, for which the
    reference trains none, no words at all."""
    return settings.uninformative_prompt if target == "image" else ""


def _rendered(
    request: Request, layout: TokenLayout, text: TextTokenizer, settings: RenderSettings
) -> tuple[Rendered, int]:
    row = _row(request, layout, text, settings)
    task = Task(
        name="generate",
        rate=1,
        sources=("request",),
        inputs=tuple(s for name, both in _STREAMS.items() for s in both if s != request.target),  # type: ignore[misc]
        target=f"text:{_ANSWER}" if request.target == "text" else request.target,
        prompts=(f"{{{_PROMPT}}}",) if row.text_lengths[0] else (),
    )
    renderer = whole_renderer([task], layout, text, settings)
    return renderer.render(0, row, epoch=0), renderer.plan(0, row, row.id, epoch=0).cut


def whole_renderer(
    tasks: Sequence[Task], layout: TokenLayout, text: TextTokenizer, settings: RenderSettings, seed: int = 0
) -> Renderer:
    """A renderer of single examples with all that they have: every patch and every stream is read, no prompt dropped,
    and what of the text is cut is cut by the settings alone.

    Args:
        tasks: whose rates mean nothing.
        seed: of the draws of prompts and items.
    """
    room = Budgets(**dict.fromkeys(Budgets.model_fields, _UNLIMITED))
    return Renderer(_read_whole(tasks, seed), layout, text, _all_kept(settings), room)


def whole_sequence_renderer(
    tasks: Sequence[Task],
    layout: TokenLayout,
    text: TextTokenizer,
    settings: RenderSettings,
    budgets: Budgets,
    seed: int = 0,
) -> SequenceRenderer:
    """The same for a decoder-only backbone, whose sequences are as long as `budgets` say at most."""
    return SequenceRenderer(_read_whole(tasks, seed), layout, text, _all_kept(settings), budgets)


def _read_whole(tasks: Sequence[Task], seed: int) -> Mixture:
    # Held-out tasks have no rates, which a mixture that is drawn from must have.
    read = tuple(task.model_copy(update={"keep_optional": 1.0}) for task in tasks)
    return Mixture.model_construct(datasets=("request",), tasks=read, seed=seed)


def _all_kept(settings: RenderSettings) -> RenderSettings:
    return settings.model_copy(update={"image_keep": 1.0, "history_keep": 1.0, "audio_keep": 1.0, "prompt_drop": 0.0})


def _row(request: Request, layout: TokenLayout, text: TextTokenizer, settings: RenderSettings) -> RowContent:
    ids = np.asarray(text.encode(request.text), np.int32)
    answer = np.zeros(settings.max_target_text - 1, np.int32)
    pictures = _prepared("image", request.pictures, layout, _shrunk)
    clips = _prepared("audio", request.clips, layout, _resampled)
    image_codes = [np.zeros(0, np.uint16)] * len(pictures)
    audio_codes = [np.zeros(0, np.uint16)] * len(clips)
    if request.target == "image":
        side = layout.image.target_size
        pictures.append(image.encode_png(np.zeros((side, side, 3), np.uint8)))
        image_codes.append(np.zeros(layout.image.target_grid**2, np.uint16))
    if request.target == "audio":
        silence = np.zeros(layout.audio.segment_samples, np.float32)
        clips.append(audio.encode_waveform(silence, layout.audio.sample_rate, "FLAC"))
        audio_codes.append(np.zeros(layout.audio.target_grid[0] * layout.audio.target_grid[1], np.uint16))
    shown = [Picture(data, layout.image) for data in pictures]
    return RowContent(
        text_roles=[_PROMPT, _ANSWER],
        text_images=[None, None],
        text_audio=[None, None],
        text_items=[None, None],
        text_lengths=[len(ids), len(answer)],
        image_patches=[int(picture.valid(layout.image.input_size).sum()) for picture in shown],
        history_patches=[int(picture.valid(layout.image.history_size).sum()) for picture in shown],
        audio_patches=[int(Clip(data, layout.audio).valid().sum()) for data in clips],
        image_codes_lengths=[len(codes) for codes in image_codes],
        audio_codes_lengths=[len(codes) for codes in audio_codes],
        target_roles=[],
        target_images=[],
        target_items=[],
        target_codes_lengths=[],
        id=_ID,
        source="request",
        key="request",
        text_ids=[ids, answer],
        image_data=pictures,
        image_codes=image_codes,
        audio_data=clips,
        audio_codes=audio_codes,
        target_heights=[],
        target_widths=[],
        target_known=[],
        target_codes=[],
    )


def _prepared(
    option: str, given: Sequence[bytes], layout: TokenLayout, prepare: Callable[[bytes, TokenLayout], bytes]
) -> list[bytes]:
    prepared = []
    for number, data in enumerate(given, 1):
        try:
            prepared.append(prepare(data, layout))
        except BadRecord as error:
            raise BadRecord(error.reason, f"--{option}, file {number}: {error.message}") from None
    return prepared


def _shrunk(data: bytes, layout: TokenLayout) -> bytes:
    """A picture as token shards hold it: scaled to fit the input canvas."""
    return image.encode_png(image.fit(image.decode_rgb(data), layout.image.input_size))


def _resampled(data: bytes, layout: TokenLayout) -> bytes:
    """A clip as token shards hold it: mono FLAC at the layout's rate, the middle of what is longer than a segment."""
    waveform, rate = audio.decode_waveform(data)
    if rate != layout.audio.sample_rate:
        waveform = soxr.resample(waveform, rate, layout.audio.sample_rate)
    if len(waveform) > layout.audio.segment_samples:
        waveform = audio.to_segment(waveform, layout.audio)
    return audio.encode_waveform(waveform, layout.audio.sample_rate, "FLAC")
