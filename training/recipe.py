"""Recipes: everything that is decided about one example for one task, from its lengths and keyed draws alone.

Encoder text is: prefix token of target modality and paradigm, one history marker per earlier picture and per earlier
clip, the prompt with its slots filled, what a denoising objective shows of the target text, EOS. It is cut (before EOS)
to `RenderSettings.max_text` and to what the example's media leave of the encoder budget. Pictures and clips without a
single valid patch are treated as absent.

`omnimill.training.bulk_lengths` counts the same for many examples at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.row_columns import RowLengths
from omnimill.rng import choose, subkey, unit
from omnimill.tokens import TokenLayout
from omnimill.training.batch import EncoderModality
from omnimill.training.choices import Choices
from omnimill.training.draws import Purpose, example_key, task_key
from omnimill.training.lengths import Budgets, Lengths
from omnimill.training.objectives import OBJECTIVES, Objective, TextSplit
from omnimill.training.prompt_text import PromptText
from omnimill.training.render_settings import RenderSettings
from omnimill.training.room import check_room, check_vocabulary, most_patches

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
# Ids of its literals and roles of its slots, in order.
Template = list[tuple[int, ...] | str]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What planning counts and rendering fills in.

    head: pieces of encoder text before any denoised text; head_tokens: how many of their tokens are kept.
    key: of the example's draws.
    target_segments: the row's text segments that, joined, are the target; empty for other targets.
    target_picture: which of the row's target pictures is the target; None for other targets.
    split: how a text target is divided.
    """

    task: Task
    key: int
    head: tuple[Piece, ...]
    head_tokens: int
    target_segments: tuple[int, ...]
    target_picture: int | None
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
        self, mixture: Mixture, layout: TokenLayout, text: PromptText, settings: RenderSettings, budgets: Budgets
    ) -> None:
        check_vocabulary(mixture, layout, text, settings)
        self.vocabulary = text.vocabulary
        self.mixture = mixture
        self.settings = settings
        self.budgets = budgets
        self.uninformative = _ids(text, settings.uninformative_prompt)
        self.templates = [[_template(text, prompt) for prompt in task.prompts] for task in mixture.tasks]
        self.task_keys = [task_key(mixture.seed, task.name) for task in mixture.tasks]
        self.most_patches = most_patches(layout, settings)
        self.target_limit = min(settings.max_target_text, budgets.decoder)
        for task in mixture.tasks:
            check_room(task, streams_read(task), self.most_patches, layout, settings, budgets)

    def make(self, task_index: int, lengths: RowLengths, example_id: str, epoch: int) -> Recipe:
        """Decide everything about one example.

        Args:
            task_index: of the mixture's tasks.
            lengths: of a row that the task can use.
            example_id, epoch: keys of the draws.
        """
        task = self.mixture.tasks[task_index]
        objective = OBJECTIVES[task.objective]
        key = example_key(self.task_keys[task_index], example_id, epoch)
        choices = Choices(task, lengths, key)
        frames = self._frames(task, objective, lengths, key)
        media = self._media_lengths(frames)
        limit = min(self.settings.max_text, self.budgets.encoder - sum(media[name] for name in _MEDIA_SLOTS)) - 1

        markers = self._markers(frames)
        prompt = self._prompt(task_index, choices, key)
        asked = sum(_tokens(piece, lengths) for piece in prompt)
        room = limit - 1 - len(markers)
        prompt_tokens = min(asked, room // 2 if task.objective == "text_denoising" else room)
        head_tokens = 1 + len(markers) + prompt_tokens

        segments: tuple[int, ...] = ()
        picture: int | None = None
        split, paradigm, shown, unused = None, objective.media_paradigm, 0, 0
        if task.target_role:
            segments = _target_segments(task, task.target_role, lengths, choices)
            whole = sum(lengths.text_lengths[segment] for segment in segments)
            split = objective.split(whole, limit - head_tokens, self.target_limit - 1, self.settings.objectives, key)
            paradigm, shown, unused = split.paradigm, split.inputs, whole - split.length
            target = {"target_text": split.targets + 1}
        elif task.target_picture:
            picture = choices.picture(task.target_picture)
            target = {"target_image": lengths.target_codes_lengths[picture]}
        else:
            codes = lengths.image_codes_lengths if task.target == "image" else lengths.audio_codes_lengths
            target = {f"target_{task.target}": codes[-1]}

        return Recipe(
            task=task,
            key=key,
            head=((self.vocabulary.prefix(task.target_modality, paradigm), *markers), *prompt),
            head_tokens=head_tokens,
            target_segments=segments,
            target_picture=picture,
            split=split,
            frames=frames,
            lengths=Lengths(text=head_tokens + shown + 1, cut=asked - prompt_tokens + unused, **media, **target),
        )

    def _frames(
        self, task: Task, objective: Objective, lengths: RowLengths, key: int
    ) -> dict[EncoderModality, tuple[Frame, ...]]:
        share = objective.hidden_share(self.settings.objectives, key)
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
            for stream in sorted(streams_read(task))
        }

    def _frame(self, stream: EncoderModality, number: int, valid: int, share: float | None) -> Frame:
        # Whatever the share, at least one patch stays visible.
        hidden = 0 if share is None else min(max(round(valid * share), 1), valid - 1)
        return Frame(number, valid, hidden, min(valid - hidden, self.most_patches[stream]))

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

    def prompt_number(self, task_index: int, key: int) -> int | None:
        """Which of a task's prompts an example has; None when it has none, or the uninformative one in its place."""
        task = self.mixture.tasks[task_index]
        if not task.prompts or self._drops_prompt(task, key):
            return None
        return choose(subkey(key, Purpose.PROMPT), len(task.prompts))

    def _prompt(self, task_index: int, choices: Choices, key: int) -> list[Piece]:
        """One of the task's templates with its slots resolved to text segments."""
        number = self.prompt_number(task_index, key)
        if number is None:
            return [self.uninformative] if self._drops_prompt(self.mixture.tasks[task_index], key) else []
        template = self.templates[task_index][number]
        return [choices.text(part) if isinstance(part, str) else part for part in template]

    def _drops_prompt(self, task: Task, key: int) -> bool:
        return may_drop_prompt(task) and unit(subkey(key, Purpose.PROMPT_DROP)) < self.settings.prompt_drop


def may_drop_prompt(task: Task) -> bool:
    """Whether some of the task's prompts are replaced, for classifier-free guidance."""
    return task.target == "image" and task.objective == "generate"


def streams_read(task: Task) -> set[EncoderModality]:
    """Media streams of the encoder that a task may fill; a denoised target is one of them."""
    names = {
        *task.inputs,
        *task.optional,
        *({task.target} if task.objective in ("image_denoising", "audio_denoising") else ()),
    }
    return {EncoderModality[name.upper()] for name in names}


def _numbers(stream: EncoderModality, count: int, history_frames: int) -> range:
    """Which of a row's `count` pictures or clips a stream reads: the last one, or those before it."""
    last = max(count - 1, 0)
    if stream in (EncoderModality.IMAGE_HISTORY, EncoderModality.AUDIO_HISTORY):
        return range(max(last - history_frames, 0), last)
    return range(last, count)


def _target_segments(task: Task, role: str, lengths: RowLengths, choices: Choices) -> tuple[int, ...]:
    """Text segments that make the target: all of the role for a denoising objective, else one."""
    if task.objective == "text_denoising":
        return tuple(i for i, name in enumerate(lengths.text_roles) if name == role)
    return (choices.text(role),)


def _tokens(piece: Piece, lengths: RowLengths) -> int:
    return lengths.text_lengths[piece] if isinstance(piece, int) else len(piece)


def _ids(text: PromptText, literal: str) -> tuple[int, ...]:
    return tuple(text.encode(literal))


def _template(text: PromptText, prompt: str) -> Template:
    """A prompt as ids of its literals (spaces around slots dropped) and names of its slots."""
    parts = _SLOT.split(prompt)
    return [part if i % 2 else _ids(text, part.strip()) for i, part in enumerate(parts) if i % 2 or part.strip()]
