"""Recipes: everything that is decided about one example for one task, from its lengths and keyed draws alone.

Encoder text is: prefix token of target modality and paradigm (of each one that is asked for, with token budgets), one
history marker per earlier picture and per earlier clip, the prompt with its slots filled, what a denoising objective
shows of the target text, EOS. It is cut (before EOS) to `RenderSettings.max_text` and to what the example's media leave
of the encoder budget. Pictures and clips without a single valid patch are treated as absent, and so are those of
optional streams that the example is not to read.

`omnimill.training.planning.bulk_lengths` counts the same for many examples at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.row_columns import RowLengths
from omnimill.rng import Int64s, UInt64s
from omnimill.tokens import TokenLayout
from omnimill.training.loading.batch import DecoderModality, EncoderModality
from omnimill.training.objectives.budgets import Medium, Portions, divide
from omnimill.training.objectives.budgets import portions as share_out
from omnimill.training.objectives.text import TextSplit, denoise, whole_target
from omnimill.training.planning.draws import example_key
from omnimill.training.planning.lengths import Budgets, Lengths
from omnimill.training.rendering.choices import Choices
from omnimill.training.rendering.frames import (
    CODED,
    Frames,
    Valid,
    frames_of,
    media_lengths,
    streams_read,
    valid_patches,
)
from omnimill.training.rendering.prompt_text import PromptText
from omnimill.training.rendering.prompting import Piece, Prompting
from omnimill.training.rendering.room import check_room, check_vocabulary, most_patches
from omnimill.training.rendering.settings import RenderSettings

_MEDIA_SLOTS = ("image", "image_history", "audio", "audio_history")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What planning counts and rendering fills in.

    head: pieces of encoder text before any denoised text; head_tokens: how many of their tokens are kept.
    key: of the example's draws.
    target_segments: the row's text segments that, joined, are the target; empty for other targets.
    target_picture: which of the row's target pictures is the target; None for other targets.
    split: how a text target is divided. codes: how many codes are asked for, by modality; all of a picture's or clip's
    except with token budgets.
    """

    task: Task
    key: int
    head: tuple[Piece, ...]
    head_tokens: int
    target_segments: tuple[int, ...]
    target_picture: int | None
    split: TextSplit | None
    codes: dict[DecoderModality, int]
    frames: Frames
    lengths: Lengths


class Recipes(Prompting):
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
        super().__init__(mixture, text, settings)
        self.budgets = budgets
        self.most_patches = most_patches(layout, settings)
        self.canvas_patches = {
            EncoderModality.IMAGE: layout.image.input_grid**2,
            EncoderModality.AUDIO: layout.audio.input_grid[0] * layout.audio.input_grid[1],
        }
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
        key = example_key(self.task_keys[task_index], example_id, epoch)
        choices = Choices(task, lengths, key)
        segments = _target_segments(task, task.target_role, lengths, choices) if task.target_role else ()
        picture = choices.picture(task.target_picture) if task.target_picture else None
        whole = sum(lengths.text_lengths[segment] for segment in segments)
        valid = valid_patches(task, lengths, key)
        portions = self._portions(whole, valid, lengths, key) if task.budgeted else None
        frames = frames_of(task, valid, portions, self.most_patches, self.settings, key)
        media = media_lengths(frames, self.settings)
        limit = min(self.settings.max_text, self.budgets.encoder - sum(media[name] for name in _MEDIA_SLOTS)) - 1

        markers = self._markers(frames)
        prompt = self.prompt(task_index, choices, key)
        asked = sum(_tokens(piece, lengths) for piece in prompt)
        prefixes = 1 if portions is None else sum(bool(count[0]) for count in portions.asked.values())
        room = limit - prefixes - len(markers)
        prompt_tokens = min(asked, room // 2 if task.denoises_text or task.budgeted else room)
        head_tokens = prefixes + len(markers) + prompt_tokens

        split = self._split(task, whole, limit - head_tokens, portions, key) if segments else None
        codes = self._codes(task, picture, portions, lengths)
        target = {f"target_{modality.name.lower()}": count for modality, count in codes.items()}
        if split is not None and split.targets:
            target["target_text"] = split.targets + 1
        shown, unused = (0, 0) if split is None else (split.inputs, whole - split.length)
        return Recipe(
            task=task,
            key=key,
            head=((*self._prefixes(task, split, codes, frames), *markers), *prompt),
            head_tokens=head_tokens,
            target_segments=segments,
            target_picture=picture,
            split=split,
            codes=codes,
            frames=frames,
            lengths=Lengths(text=head_tokens + shown + 1, cut=asked - prompt_tokens + unused, **media, **target),
        )

    def _portions(self, whole: int, valid: Valid, lengths: RowLengths, key: int) -> Portions:
        codes = {EncoderModality.IMAGE: lengths.image_codes_lengths, EncoderModality.AUDIO: lengths.audio_codes_lengths}
        last = {stream: (_last(valid[stream]), _last(codes[stream])) for stream in codes if stream in valid}
        return self.portions(
            np.array([whole]),
            {stream: (np.array([own]), np.array([its])) for stream, (own, its) in last.items()},
            np.array([key], np.uint64),
        )

    def portions(self, text: Int64s, media: Mapping[EncoderModality, tuple[Int64s, Int64s]], keys: UInt64s) -> Portions:
        """What n examples with token budgets show and ask for.

        Args:
            text: int64 [n]; tokens of the target text, 0 for other targets.
            media: valid patches and codes of the current picture and clip, of those that the task reads.
            keys: uint64 [n].
        """
        return share_out(
            self.settings.objectives.token_budgets,
            text,
            self.target_limit - 1,
            {
                CODED[stream]: Medium(valid, codes, self.most_patches[stream], self.canvas_patches[stream])
                for stream, (valid, codes) in media.items()
            },
            keys,
        )

    def _split(self, task: Task, whole: int, room: int, portions: Portions | None, key: int) -> TextSplit:
        """How a text target is divided, with so much room in the encoder."""
        if not task.denoises_text and portions is None:
            return whole_target(whole, self.target_limit - 1, key)
        objectives, lengths, keys = self.settings.objectives, np.array([whole]), np.array([key], np.uint64)
        if portions is None:
            splits = denoise(
                objectives.denoisers_of(task), lengths, np.array([room]), np.array([self.target_limit - 1]), keys
            )
        else:
            shown, asked = np.minimum(portions.shown["text"], room), portions.asked["text"]
            splits = divide(objectives.token_budgets, lengths, shown, asked, keys)
        return splits.one()

    def _codes(
        self, task: Task, picture: int | None, portions: Portions | None, lengths: RowLengths
    ) -> dict[DecoderModality, int]:
        if portions is not None:
            asked = {
                DecoderModality[stream.name]: int(portions.asked[name][0])
                for stream, name in CODED.items()
                if name in portions.asked
            }
            return {modality: count for modality, count in asked.items() if count}
        if task.target_role:
            return {}
        if picture is not None:
            return {DecoderModality.IMAGE: lengths.target_codes_lengths[picture]}
        if task.target == "image":
            return {DecoderModality.IMAGE: lengths.image_codes_lengths[-1]}
        return {DecoderModality.AUDIO: lengths.audio_codes_lengths[-1]}

    def _prefixes(
        self, task: Task, split: TextSplit | None, codes: dict[DecoderModality, int], frames: Frames
    ) -> list[int]:
        """A token of modality and paradigm for everything that is asked for."""
        found = [self.vocabulary.prefix("text", split.paradigm)] if split is not None and split.targets else []
        for stream, name in CODED.items():
            if DecoderModality[stream.name] in codes:
                shown = bool(frames.get(stream)) and (task.budgeted or task.own_stream == name)
                found.append(self.vocabulary.prefix(name, "R" if shown else "S"))
        return found

    def _markers(self, frames: Frames) -> list[int]:
        images, clips = (
            frames.get(stream, ()) for stream in (EncoderModality.IMAGE_HISTORY, EncoderModality.AUDIO_HISTORY)
        )
        return [
            *(self.vocabulary.image_history(k + 1) for k in range(len(images))),
            *(self.vocabulary.audio_history(k + 1) for k in range(len(clips))),
        ]


def _target_segments(task: Task, role: str, lengths: RowLengths, choices: Choices) -> tuple[int, ...]:
    """Text segments that make the target: all of the role for a denoising objective, else one."""
    if task.denoises_text:
        return tuple(i for i, name in enumerate(lengths.text_roles) if name == role)
    return (choices.text(role),)


def _last(values: Sequence[int]) -> int:
    return values[-1] if len(values) else 0


def _tokens(piece: Piece, lengths: RowLengths) -> int:
    return lengths.text_lengths[piece] if isinstance(piece, int) else len(piece)
