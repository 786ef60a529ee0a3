"""Recipes: everything that is decided about one example for one task, from its lengths and keyed draws alone.

Encoder text is: prefix token of target modality and paradigm, one history marker per earlier picture and per earlier
clip, the prompt with its slots filled, what a denoising objective shows of the target text, EOS. It is cut (before EOS)
to `RenderSettings.max_text` and to what the example's media leave of the encoder budget. Pictures and clips without a
single valid patch are treated as absent.

Every draw is keyed by (seed, example, epoch, task) and its purpose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from omnimill.errors import ConfigError, OmnimillError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.rows import RowLengths
from omnimill.rng import Key, uniform
from omnimill.tokenizers.sampling import patch_count
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import SENTINELS
from omnimill.tokens import TokenLayout
from omnimill.training.batch import EncoderModality
from omnimill.training.lengths import Budgets, Lengths
from omnimill.training.objectives import OBJECTIVES, Keys, Objective, TextSplit
from omnimill.training.render_settings import RenderSettings

T = TypeVar("T")

# Tokens of text and of a text target that every task must have room for, however large its media.
_LEAST_TEXT, _LEAST_TARGET = 16, 8
_SLOT = re.compile(r"\{(\w+)\}")
_STREAMS = (
    EncoderModality.IMAGE,
    EncoderModality.IMAGE_HISTORY,
    EncoderModality.AUDIO,
    EncoderModality.AUDIO_HISTORY,
)
_MEDIA_SLOTS = ("image", "image_history", "audio", "audio_history")


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture or clip that the encoder reads.

    number: its place among the row's. valid: patches that are not padding. hidden: those that the objective hides.
    kept: those that remain after sub-sampling.
    """

    number: int
    valid: int
    hidden: int
    kept: int


# Ids of a literal, or the number of the row's text segment that fills a slot.
Piece = tuple[int, ...] | int


@dataclass(frozen=True, slots=True)
class Recipe:
    """What planning counts and rendering fills in.

    head: pieces of encoder text before any denoised text; head_tokens: how many of their tokens are kept.
    target_segments: the row's text segments that, joined, are the target; empty for other targets.
    split: how that text is divided.
    """

    task: Task
    keys: Keys
    head: tuple[Piece, ...]
    head_tokens: int
    target_segments: tuple[int, ...]
    split: TextSplit | None
    frames: dict[EncoderModality, tuple[Frame, ...]]
    lengths: Lengths


class Recipes:
    """Makes the recipe of any example.

    Args:
        mixture: tasks and seed.
        layout: of the token dataset.
        text: encodes the prompts' literals, once.
        settings: see :class:`RenderSettings`.
        budgets: of a packed sequence; text is cut so that every example fits one.

    Raises:
        ConfigError: the tokenizer is not the dataset's, or some example of a task could not fit a sequence even with
            its text cut.
    """

    def __init__(
        self, mixture: Mixture, layout: TokenLayout, text: TextTokenizer, settings: RenderSettings, budgets: Budgets
    ) -> None:
        self.vocabulary = text.vocabulary
        if self.vocabulary.pieces != layout.text_pieces:
            raise ConfigError(
                f"the text tokenizer has {self.vocabulary.pieces} pieces, but dataset {mixture.datasets[0]!r} was "
                f"tokenized with {layout.text_pieces}: use tokenizers {layout.tokenizers!r}"
            )
        _check_vocabulary(mixture, layout, text, settings)
        self.mixture = mixture
        self.layout = layout
        self.settings = settings
        self.budgets = budgets
        self._uninformative = _ids(text, settings.uninformative_prompt)
        self._templates = [[_template(text, prompt) for prompt in task.prompts] for task in mixture.tasks]
        image, audio = layout.image, layout.audio
        self._most_patches = {
            EncoderModality.IMAGE: patch_count(image.input_grid**2, settings.image_keep),
            EncoderModality.IMAGE_HISTORY: patch_count(image.history_grid**2, settings.history_keep),
            EncoderModality.AUDIO: patch_count(audio.input_grid[0] * audio.input_grid[1], settings.audio_keep),
        }
        self._most_patches[EncoderModality.AUDIO_HISTORY] = self._most_patches[EncoderModality.AUDIO]
        self._target_limit = min(settings.max_target_text, budgets.decoder)
        for task in mixture.tasks:
            self._check_room(task)

    def make(self, task_index: int, lengths: RowLengths, example_id: str, epoch: int) -> Recipe:
        """Decide everything about one example.

        Args:
            task_index: of the mixture's tasks.
            lengths: of a row that the task can use.
            example_id, epoch: keys of the draws.
        """
        task = self.mixture.tasks[task_index]
        objective = OBJECTIVES[task.objective]
        keys: Keys = (self.mixture.seed, example_id, epoch, task.name)
        frames = self._frames(task, objective, lengths, keys)
        media = self._media_lengths(frames)
        limit = min(self.settings.max_text, self.budgets.encoder - sum(media[name] for name in _MEDIA_SLOTS)) - 1

        markers = self._markers(frames)
        prompt = self._prompt(task_index, lengths, keys)
        asked = sum(_tokens(piece, lengths) for piece in prompt)
        room = limit - 1 - len(markers)
        prompt_tokens = min(asked, room // 2 if task.objective == "text_denoising" else room)
        head_tokens = 1 + len(markers) + prompt_tokens

        segments: tuple[int, ...] = ()
        split, paradigm, shown, unused = None, objective.media_paradigm, 0, 0
        if task.target_role is None:
            codes = lengths.image_codes_lengths if task.target == "image" else lengths.audio_codes_lengths
            target = {f"target_{task.target}": codes[-1]}
        else:
            segments = _target_segments(task, task.target_role, lengths, keys)
            whole = sum(lengths.text_lengths[segment] for segment in segments)
            split = objective.split(whole, limit - head_tokens, self._target_limit - 1, self.settings.objectives, keys)
            paradigm, shown, unused = split.paradigm, split.inputs, whole - split.length
            target = {"target_text": split.targets + 1}

        return Recipe(
            task=task,
            keys=keys,
            head=((self.vocabulary.prefix(task.target_modality, paradigm), *markers), *prompt),
            head_tokens=head_tokens,
            target_segments=segments,
            split=split,
            frames=frames,
            lengths=Lengths(text=head_tokens + shown + 1, cut=asked - prompt_tokens + unused, **media, **target),
        )

    def _frames(
        self, task: Task, objective: Objective, lengths: RowLengths, keys: Keys
    ) -> dict[EncoderModality, tuple[Frame, ...]]:
        share = objective.hidden_share(self.settings.objectives, keys)
        valid = {
            EncoderModality.IMAGE: lengths.image_patches,
            EncoderModality.IMAGE_HISTORY: lengths.history_patches,
            EncoderModality.AUDIO: lengths.audio_patches,
            EncoderModality.AUDIO_HISTORY: lengths.audio_patches,
        }
        return {
            stream: tuple(
                self._frame(
                    stream, number, valid[stream][number], share if stream.name.lower() == task.target else None
                )
                for number in _numbers(stream, len(valid[stream]), self.settings.history_frames)
                if valid[stream][number]
            )
            for stream in sorted(_streams_read(task))
        }

    def _frame(self, stream: EncoderModality, number: int, valid: int, share: float | None) -> Frame:
        # Whatever the share, at least one patch stays visible.
        hidden = 0 if share is None else min(max(round(valid * share), 1), valid - 1)
        return Frame(number, valid, hidden, min(valid - hidden, self._most_patches[stream]))

    def _media_lengths(self, frames: dict[EncoderModality, tuple[Frame, ...]]) -> dict[str, int]:
        """The fields of `Lengths` that belong to the encoder's pictures and clips."""
        image, earlier_images, audio, earlier_clips = (frames.get(stream, ()) for stream in _STREAMS)
        return {
            "image": sum(frame.kept for frame in image),
            "image_history": len(earlier_images) * self.settings.image_latents,
            "audio": sum(frame.kept for frame in audio),
            "audio_history": len(earlier_clips) * self.settings.audio_latents,
            "images": len(image),
            "earlier_images": len(earlier_images),
            "clips": len(audio),
            "earlier_clips": len(earlier_clips),
        }

    def _markers(self, frames: dict[EncoderModality, tuple[Frame, ...]]) -> list[int]:
        images, clips = (
            frames.get(stream, ()) for stream in (EncoderModality.IMAGE_HISTORY, EncoderModality.AUDIO_HISTORY)
        )
        return [
            *(self.vocabulary.image_history(k + 1) for k in range(len(images))),
            *(self.vocabulary.audio_history(k + 1) for k in range(len(clips))),
        ]

    def _prompt(self, task_index: int, lengths: RowLengths, keys: Keys) -> list[Piece]:
        """One of the task's templates with its slots resolved to text segments."""
        task, templates = self.mixture.tasks[task_index], self._templates[task_index]
        guided = task.target == "image" and task.objective == "generate"
        if guided and uniform(*keys, "prompt_drop") < self.settings.prompt_drop:
            return [self._uninformative]
        if not templates:
            return []
        template = _draw(templates, *keys, "prompt")
        return [_segment(task, part, lengths, keys) if isinstance(part, str) else part for part in template]

    def _check_room(self, task: Task) -> None:
        """Raise ConfigError unless the task's largest possible example fits, its text cut to the least."""
        settings = self.settings
        counts = dict.fromkeys(_STREAMS, 1)
        counts[EncoderModality.IMAGE_HISTORY] = counts[EncoderModality.AUDIO_HISTORY] = settings.history_frames
        largest = {
            stream: (Frame(0, most, 0, most),) * counts[stream]
            for stream, most in self._most_patches.items()
            if stream in _streams_read(task)
        }
        needed = Lengths(
            text=2 + len(self._markers(largest)) + _LEAST_TEXT,
            target_text=_LEAST_TARGET if task.target_role else 0,
            target_image=self.layout.image.target_grid**2 if task.target == "image" else 0,
            target_audio=self.layout.audio.target_grid[0] * self.layout.audio.target_grid[1]
            if task.target == "audio"
            else 0,
            **self._media_lengths(largest),
        )
        for name, need, room in zip(Budgets.model_fields, needed.costs, self.budgets.limits, strict=True):
            if need > room:
                raise ConfigError(
                    f"budget {name!r} is too small for task {task.name!r}: its largest example needs {need}, "
                    f"found {room}; raise the budget, keep fewer patches or earlier frames, or drop the task"
                )


def _streams_read(task: Task) -> set[EncoderModality]:
    """Media streams of the encoder that a task fills; a denoised target is one of them."""
    names = {*task.inputs, *({task.target} if task.objective in ("image_denoising", "audio_denoising") else ())}
    return {EncoderModality[name.upper()] for name in names}


def _numbers(stream: EncoderModality, count: int, history_frames: int) -> range:
    """Which of a row's `count` pictures or clips a stream reads: the last one, or those before it."""
    last = max(count - 1, 0)
    if stream in (EncoderModality.IMAGE_HISTORY, EncoderModality.AUDIO_HISTORY):
        return range(max(last - history_frames, 0), last)
    return range(last, count)


def _target_segments(task: Task, role: str, lengths: RowLengths, keys: Keys) -> tuple[int, ...]:
    """Text segments that make the target: all of the role for a denoising objective, else one."""
    if task.objective == "text_denoising":
        return tuple(i for i, name in enumerate(lengths.text_roles) if name == role)
    return (_segment(task, role, lengths, keys),)


def _segment(task: Task, role: str, lengths: RowLengths, keys: Keys) -> int:
    candidates = lengths.texts(role)
    if not candidates:
        raise OmnimillError(f"task {task.name!r} needs a text of role {role!r}, which example {keys[1]} does not have")
    return _draw(candidates, *keys, "text", role)


def _draw(options: Sequence[T], *keys: Key) -> T:
    return options[int(uniform(*keys) * len(options))]


def _check_vocabulary(mixture: Mixture, layout: TokenLayout, text: TextTokenizer, settings: RenderSettings) -> None:
    """What rendering writes has to be in the vocabulary."""
    vocabulary = layout.vocabulary
    if text.vocabulary.layout != vocabulary:
        raise ConfigError(f"the text tokenizer has other added tokens than tokenizers {layout.tokenizers!r}: use those")
    if settings.history_frames > vocabulary.history:
        raise ConfigError(
            f"history_frames: found {settings.history_frames}, tokenizers {layout.tokenizers!r} have "
            f"{vocabulary.history} history markers (layout.vocabulary.history)"
        )
    denoised = [task.name for task in mixture.tasks if task.objective == "text_denoising"]
    if denoised and vocabulary.sentinels < SENTINELS:
        raise ConfigError(
            f"task {denoised[0]!r}: text_denoising needs {SENTINELS} sentinels, tokenizers {layout.tokenizers!r} have "
            f"{vocabulary.sentinels} (layout.vocabulary.sentinels)"
        )


def _tokens(piece: Piece, lengths: RowLengths) -> int:
    return lengths.text_lengths[piece] if isinstance(piece, int) else len(piece)


def _ids(text: TextTokenizer, literal: str) -> tuple[int, ...]:
    return tuple(text.encode(literal))


def _template(text: TextTokenizer, prompt: str) -> tuple[tuple[int, ...] | str, ...]:
    """A prompt as ids of its literals (spaces around slots dropped) and names of its slots."""
    parts = _SLOT.split(prompt)
    return tuple(part if i % 2 else _ids(text, part.strip()) for i, part in enumerate(parts) if i % 2 or part.strip())
